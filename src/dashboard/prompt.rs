//! A line that is being typed: the command line and the filters.

/// What a line is typed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `:` a command.
    Command,
    /// `/` a filter of the tab's rows.
    Filter,
    /// `ctrl-f` text to find in logs.
    Search,
}

impl Purpose {
    /// What stands in front of the line.
    pub fn sign(self) -> &'static str {
        match self {
            Purpose::Command => ":",
            Purpose::Filter => "/",
            Purpose::Search => "find: ",
        }
    }
}

/// A line with a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What it is typed for.
    pub purpose: Purpose,
    /// The line.
    pub text: String,
    /// Byte offset of the cursor, always between characters.
    pub cursor: usize,
}

impl Prompt {
    /// A line that begins with `text`.
    pub fn new(purpose: Purpose, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { purpose, cursor: text.len(), text }
    }

    /// Types a character.
    pub fn insert(&mut self, c: char) {
        self.text.insert(self.cursor, c);
        self.cursor += c.len_utf8();
    }

    /// Deletes the character before the cursor, if there is one.
    pub fn backspace(&mut self) {
        if let Some(c) = self.text[..self.cursor].chars().next_back() {
            self.cursor -= c.len_utf8();
            self.text.remove(self.cursor);
        }
    }

    /// Deletes back to the start of the word.
    pub fn delete_word(&mut self) {
        let before = self.text[..self.cursor].trim_end();
        let start = before.rfind(' ').map_or(0, |at| at + 1);
        self.text.replace_range(start..self.cursor, "");
        self.cursor = start;
    }

    /// Moves by one character.
    pub fn step(&mut self, forward: bool) {
        let moved = match forward {
            true => self.text[self.cursor..].chars().next(),
            false => self.text[..self.cursor].chars().next_back(),
        };
        let length = moved.map_or(0, char::len_utf8);
        self.cursor = if forward { self.cursor + length } else { self.cursor - length };
    }

    /// Replaces the line.
    pub fn set(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn edits_between_characters() {
        let mut prompt = Prompt::new(Purpose::Filter, "zürich");
        prompt.step(false);
        prompt.insert('ß');
        assert_eq!(prompt.text, "züricßh");
        prompt.cursor = 3;
        prompt.backspace();
        assert_eq!((prompt.text.as_str(), prompt.cursor), ("zricßh", 1));
        prompt.set("trigger cat".into());
        prompt.delete_word();
        assert_eq!(prompt.text, "trigger ");
        prompt.delete_word();
        assert_eq!((prompt.text.as_str(), prompt.cursor), ("", 0));
        prompt.backspace();
        prompt.step(true);
        prompt.step(false);
        assert_eq!(prompt.cursor, 0);
    }
}
