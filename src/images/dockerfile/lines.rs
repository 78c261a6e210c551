//! From text to logical lines: parser directives, comments, continuations, heredocs.

use super::error::{DockerfileError, Source, Span};

/// A here-document of an instruction.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Heredoc {
    /// The word that ends it; the file's name for COPY and ADD.
    pub name: String,
    /// Its lines, each with its line end.
    pub content: String,
    /// Variables are replaced: the word was not quoted.
    pub expand: bool,
    /// Leading tabs were taken off: `<<-`.
    pub chomp: bool,
}

/// An instruction's text without continuations and comments.
#[derive(Clone, Debug)]
pub struct LogicalLine {
    /// Text from the instruction's name on.
    pub text: String,
    /// Offset in `text` → offset in the file, ascending.
    map: Vec<(usize, usize)>,
    /// Heredocs in order.
    pub heredocs: Vec<Heredoc>,
}

impl LogicalLine {
    /// Place in the file of a byte range of the text.
    pub fn span(&self, begin: usize, end: usize) -> Span {
        let at = |offset: usize| {
            let index = self.map.partition_point(|(logical, _)| *logical <= offset).saturating_sub(1);
            self.map.get(index).map_or(0, |(logical, file)| file + offset.saturating_sub(*logical))
        };
        Span { begin: at(begin), end: at(end.saturating_sub(1).max(begin)) + 1 }
    }
}

/// A Dockerfile cut into logical lines.
#[derive(Debug)]
pub struct Lines {
    /// Escape character: `\`, or a backtick by directive.
    pub escape: char,
    /// `# syntax=`, if given.
    pub syntax: Option<String>,
    /// Instructions.
    pub lines: Vec<LogicalLine>,
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Next line without its end, and its offset.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        if self.at >= self.text.len() {
            return None;
        }
        let begin = self.at;
        let rest = &self.text[begin..];
        let length = rest.find('\n').unwrap_or(rest.len());
        self.at = (begin + length + 1).min(self.text.len().max(begin + length));
        if length == rest.len() {
            self.at = self.text.len();
        }
        Some((begin, rest[..length].strip_suffix('\r').unwrap_or(&rest[..length])))
    }
}

/// Cuts a Dockerfile into logical lines.
///
/// # Errors
/// An unknown escape directive, or a heredoc that does not end.
pub fn split(source: &Source) -> Result<Lines, DockerfileError> {
    let text = source.text.as_str();
    // A byte order mark is not part of the first instruction.
    let mut cursor = Cursor { text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } };
    let (escape, syntax) = directives(source, &mut cursor)?;
    let mut lines = Vec::new();
    while let Some(line) = logical(source, &mut cursor, escape)? {
        lines.push(line);
    }
    Ok(Lines { escape, syntax, lines })
}

/// Reads the directives, which stand before everything else, comments too.
fn directives(source: &Source, cursor: &mut Cursor) -> Result<(char, Option<String>), DockerfileError> {
    let (mut escape, mut syntax) = ('\\', None);
    loop {
        let before = cursor.at;
        let Some((begin, line)) = cursor.next() else { return Ok((escape, syntax)) };
        let directive = line.trim_start().strip_prefix('#').and_then(|c| c.split_once('='));
        let (name, value) = match directive {
            Some((name, value)) => (name.trim().to_ascii_lowercase(), value.trim()),
            None => {
                cursor.at = before;
                return Ok((escape, syntax));
            }
        };
        match name.as_str() {
            "syntax" => syntax = Some(value.to_owned()),
            "escape" => {
                escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => {
                        let span = Span { begin, end: begin + line.len() };
                        let hint = Some("the escape character is \\ or `".to_owned());
                        return Err(source.error(span, format!("invalid escape directive {value:?}"), hint));
                    }
                }
            }
            "check" => {}
            _ => {
                cursor.at = before;
                return Ok((escape, syntax));
            }
        }
    }
}

/// Reads the next instruction; `None` at the end.
fn logical(source: &Source, cursor: &mut Cursor, escape: char) -> Result<Option<LogicalLine>, DockerfileError> {
    let mut line = LogicalLine { text: String::new(), map: Vec::new(), heredocs: Vec::new() };
    let mut open = false;
    while let Some((begin, raw)) = cursor.next() {
        let trimmed = raw.trim_start();
        // Comments and empty lines, also between the lines of one instruction.
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let (skipped, content) = if open { (0, raw) } else { (raw.len() - trimmed.len(), trimmed) };
        let stripped = content.trim_end_matches([' ', '\t']);
        let continued = stripped.ends_with(escape) && !escaped_end(stripped, escape);
        let content = if continued { &stripped[..stripped.len() - escape.len_utf8()] } else { content };
        line.map.push((line.text.len(), begin + skipped));
        line.text.push_str(content);
        open = true;
        if !continued {
            break;
        }
    }
    if !open {
        return Ok(None);
    }
    line.text.truncate(line.text.trim_end().len());
    heredocs(source, cursor, &mut line)?;
    Ok(Some(line))
}

/// Whether the escape at the end is itself escaped. Docker continues the line all the same, except for `RUN a \\`
/// where two of them are a literal one.
fn escaped_end(line: &str, escape: char) -> bool {
    line.chars().rev().take_while(|c| *c == escape).count() % 2 == 0
}

/// Finds `<<WORD` in RUN, COPY and ADD and reads the bodies.
fn heredocs(source: &Source, cursor: &mut Cursor, line: &mut LogicalLine) -> Result<(), DockerfileError> {
    let instruction = line.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    let nested = instruction == "ONBUILD";
    if !nested && !matches!(instruction.as_str(), "RUN" | "COPY" | "ADD") {
        return Ok(());
    }
    for (begin, end, name, expand, chomp) in heredoc_words(&line.text) {
        let mut content = String::new();
        let mut closed = false;
        while let Some((_, raw)) = cursor.next() {
            let body = if chomp { raw.trim_start_matches('\t') } else { raw };
            if body == name {
                closed = true;
                break;
            }
            content.push_str(body);
            content.push('\n');
        }
        if !closed {
            let hint = Some(format!("end it by a line that is {name} and nothing else"));
            return Err(source.error(line.span(begin, end), format!("heredoc {name} does not end"), hint));
        }
        line.heredocs.push(Heredoc { name, content, expand, chomp });
    }
    Ok(())
}

/// Heredoc markers outside quotes: begin, end, word, whether variables are replaced, whether tabs are taken off.
fn heredoc_words(text: &str) -> Vec<(usize, usize, String, bool, bool)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut quote) = (0, None);
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(q) if byte == q => quote = None,
            Some(b'"') if byte == b'\\' => at += 1,
            Some(_) => {}
            None if byte == b'\\' => at += 1,
            None if matches!(byte, b'"' | b'\'') => quote = Some(byte),
            None if bytes[at..].starts_with(b"<<<") => at += 2,
            None if bytes[at..].starts_with(b"<<") => {
                if let Some((end, name, expand, chomp)) = heredoc_word(text, at) {
                    found.push((at, end, name, expand, chomp));
                    at = end;
                    continue;
                }
                at += 1;
            }
            None => {}
        }
        at += 1;
    }
    found
}

fn heredoc_word(text: &str, begin: usize) -> Option<(usize, String, bool, bool)> {
    let rest = &text[begin + 2..];
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |r| (true, r));
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let word_begin = text.len() - rest.len() + quote.map_or(0, |_| 1);
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    let length = text[word_begin..].find(|c| !word(c)).unwrap_or(text.len() - word_begin);
    let name = &text[word_begin..word_begin + length];
    let mut end = word_begin + length;
    if let Some(quote) = quote {
        if !text[end..].starts_with(quote) {
            return None;
        }
        end += 1;
    }
    // A number is a shift in arithmetic, `$((1<<2))`.
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts.then(|| (end, name.to_owned(), quote.is_none(), chomp))
}
