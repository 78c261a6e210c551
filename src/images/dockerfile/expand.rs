//! Variables and quotes in the words of an instruction, as Docker reads them.

use regex::Regex;

/// Why a word cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// `${` without `}`.
    #[error("${{ without }}")]
    OpenBrace,
    /// A quote that does not end.
    #[error("a quote ({0}) does not end")]
    OpenQuote(char),
    /// `${}` or `${-x}`.
    #[error("bad substitution: ${{{0}}}")]
    BadSubstitution(String),
    /// `${VAR:?message}` of a variable that is not set.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message.
        message: String,
    },
}

/// Replaces variables, removes quotes and escapes.
///
/// # Errors
/// [`ExpandError`].
pub fn expand(word: &str, escape: char, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut reader = Reader { rest: word, escape, lookup, keep_quotes: false };
    reader.until(None)
}

/// Replaces variables only, as in the body of a heredoc; quotes stay.
///
/// # Errors
/// [`ExpandError`].
pub fn expand_text(text: &str, escape: char, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut reader = Reader { rest: text, escape, lookup, keep_quotes: true };
    reader.until(None)
}

struct Reader<'a> {
    rest: &'a str,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    keep_quotes: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Reads up to `end`, which is taken, or to the end of the text.
    fn until(&mut self, end: Option<char>) -> Result<String, ExpandError> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == end => return Ok(out),
                '\'' if !self.keep_quotes => out.push_str(&self.single()?),
                '"' if !self.keep_quotes => out.push_str(&self.double()?),
                '$' => out.push_str(&self.variable()?),
                c if c == self.escape => match self.next() {
                    Some(next) if self.keep_quotes && next != '$' && next != self.escape => out.extend([c, next]),
                    Some(next) => out.push(next),
                    None => out.push(c),
                },
                c => out.push(c),
            }
        }
        if end.is_some() { Err(ExpandError::OpenBrace) } else { Ok(out) }
    }

    fn single(&mut self) -> Result<String, ExpandError> {
        let end = self.rest.find('\'').ok_or(ExpandError::OpenQuote('\''))?;
        let text = self.rest[..end].to_owned();
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    fn double(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(out),
                '$' => out.push_str(&self.variable()?),
                c if c == self.escape => match self.peek() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.next();
                        out.push(next);
                    }
                    _ => out.push(c),
                },
                c => out.push(c),
            }
        }
        Err(ExpandError::OpenQuote('"'))
    }

    fn name(&mut self) -> String {
        let first = self.peek();
        let length = match first {
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len())
            }
            Some(c) if c.is_ascii_digit() => self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len()),
            Some('@' | '*' | '#') => 1,
            _ => 0,
        };
        let name = self.rest[..length].to_owned();
        self.rest = &self.rest[length..];
        name
    }

    fn variable(&mut self) -> Result<String, ExpandError> {
        if self.peek() != Some('{') {
            let name = self.name();
            // A lone dollar sign stays.
            return Ok(if name.is_empty() { "$".to_owned() } else { (self.lookup)(&name).unwrap_or_default() });
        }
        self.next();
        let whole = self.rest;
        let bad = || ExpandError::BadSubstitution(whole.split('}').next().unwrap_or(whole).to_owned());
        let name = self.name();
        if name.is_empty() {
            return Err(bad());
        }
        let value = (self.lookup)(&name);
        let Some(operator) = self.next() else { return Err(ExpandError::OpenBrace) };
        let (colon, operator) = match operator {
            '}' => return Ok(value.unwrap_or_default()),
            ':' => (true, self.next().ok_or(ExpandError::OpenBrace)?),
            other => (false, other),
        };
        let set = value.clone().filter(|v| !colon || !v.is_empty());
        match operator {
            '-' => self.until(Some('}')).map(|word| set.unwrap_or(word)),
            '+' => self.until(Some('}')).map(|word| if set.is_some() { word } else { String::new() }),
            '?' => {
                let word = self.until(Some('}'))?;
                let message = if word.is_empty() { "is not allowed to be unset".to_owned() } else { word };
                set.ok_or(ExpandError::Required { name, message })
            }
            '#' | '%' if !colon => {
                let longest = self.peek() == Some(operator);
                if longest {
                    self.next();
                }
                let pattern = self.until(Some('}'))?;
                Ok(trim(&value.unwrap_or_default(), &pattern, operator == '#', longest))
            }
            '/' if !colon => {
                let all = self.peek() == Some('/');
                if all {
                    self.next();
                }
                let text = self.until(Some('}'))?;
                let (pattern, with) = text.split_once('/').unwrap_or((&text, ""));
                let value = value.unwrap_or_default();
                let Ok(regex) = Regex::new(&glob(pattern, true)) else { return Ok(value) };
                let limit = if all { 0 } else { 1 };
                Ok(regex.replacen(&value, limit, regex::NoExpand(with)).into_owned())
            }
            _ => Err(bad()),
        }
    }
}

/// A shell pattern as a regular expression.
fn glob(pattern: &str, greedy: bool) -> String {
    let mut out = String::from("(?s)");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            '\\' => out.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out
}

/// `${VAR#pattern}` and its kin.
fn trim(value: &str, pattern: &str, prefix: bool, longest: bool) -> String {
    if prefix {
        let Ok(regex) = Regex::new(&format!("^{}", glob(pattern, longest))) else { return value.to_owned() };
        return regex.replacen(value, 1, "").into_owned();
    }
    let Ok(regex) = Regex::new(&format!("{}$", glob(pattern, true))) else { return value.to_owned() };
    // The shortest suffix is the match that begins last, the longest the one that begins first.
    let mut starts = value.char_indices().map(|(i, _)| i).chain([value.len()]).collect::<Vec<_>>();
    if !longest {
        starts.reverse();
    }
    let begin = starts.into_iter().find(|&at| regex.find(&value[at..]).is_some_and(|m| m.start() == 0));
    begin.map_or(value, |at| &value[..at]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("apple".into()),
            "EMPTY" => Some(String::new()),
            "PATHS" => Some("a/b/c.tar.gz".into()),
            _ => None,
        }
    }

    #[test]
    fn words_are_read_as_docker_reads_them() {
        for (word, want) in [
            ("$A", "apple"),
            ("${A}s", "apples"),
            ("$As", ""),
            (r"\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A b\"", "apple b"),
            (r#""a\"b\c""#, r#"a"b\c"#),
            (r"a\ b", "a b"),
            ("${X:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${X-${A}}", "apple"),
            ("${A:+yes}", "yes"),
            ("${EMPTY:+yes}", ""),
            ("${EMPTY+yes}", "yes"),
            ("${PATHS#*/}", "b/c.tar.gz"),
            ("${PATHS##*/}", "c.tar.gz"),
            ("${PATHS%.*}", "a/b/c.tar"),
            ("${PATHS%%.*}", "a/b/c"),
            ("${PATHS/a/x}", "x/b/c.tar.gz"),
            ("${PATHS//[/x}", "a/b/c.tar.gz"),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("${A:?must}", "apple"),
        ] {
            assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(want), "{word}");
        }
        assert_eq!(expand("`$A", '`', &lookup).as_deref(), Ok("$A"));
        assert_eq!(expand_text("echo \"$A\" '\\$A'\n", '\\', &lookup).as_deref(), Ok("echo \"apple\" '$A'\n"));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for word in ["${A", "${}", "\"$A", "'a", "${X:?must}", "${A!b}", "${X:"] {
            assert!(expand(word, '\\', &lookup).is_err(), "{word}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(word in ".{0,40}") {
            let _ = expand(&word, '\\', &lookup);
            let _ = expand_text(&word, '`', &lookup);
        }
    }
}
