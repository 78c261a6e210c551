//! Arguments of an instruction cut into words.

/// A word and its place in the logical line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// First byte.
    pub begin: usize,
    /// The word as written, quotes included.
    pub text: &'a str,
}

impl Word<'_> {
    /// Byte after the last.
    pub fn end(&self) -> usize {
        self.begin + self.text.len()
    }
}

/// Words between blanks; quotes mean nothing (COPY, EXPOSE, …).
pub fn blank_separated(text: &str, offset: usize) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut begin = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (c.is_whitespace(), begin) {
            (false, None) => begin = Some(at),
            (true, Some(from)) => {
                words.push(Word { begin: offset + from, text: &text[from..at] });
                begin = None;
            }
            _ => {}
        }
    }
    words
}

/// Words between blanks outside of quotes and escapes (ENV, LABEL, ARG).
pub fn quoted(text: &str, offset: usize, escape: char) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let (mut begin, mut quote, mut escaped) = (None, None, false);
    for (at, c) in text.char_indices() {
        if begin.is_none() && !c.is_whitespace() {
            begin = Some(at);
        }
        if escaped {
            escaped = false;
            continue;
        }
        match (c, quote) {
            (c, Some('\'')) if c == escape => {}
            (c, _) if c == escape => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => {
                if let Some(from) = begin.take() {
                    words.push(Word { begin: offset + from, text: &text[from..at] });
                }
            }
            _ => {}
        }
    }
    if let Some(from) = begin {
        words.push(Word { begin: offset + from, text: &text[from..] });
    }
    words
}
