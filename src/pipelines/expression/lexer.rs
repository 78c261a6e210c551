//! Text → tokens. What a `.` or a word is depends on the token before it.

use super::{ExpressionError, Value, value::parse_version};

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// As written.
    pub raw: String,
    /// Position in characters, from 1.
    pub position: usize,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A literal.
    Literal(Value),
    /// A name: of a function when `(` follows.
    Name,
    /// A name after `.`.
    Property,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `[`
    OpenIndex,
    /// `]`
    CloseIndex,
    /// `,`
    Comma,
    /// `.`
    Dot,
    /// `*`
    Star,
    /// Anything the language has no use for.
    Symbol,
}

/// All tokens of a text.
///
/// # Errors
/// A number that is none, a text that does not end, a wrong name after `.`.
pub fn tokens(expression: &str) -> Result<Vec<Token>, ExpressionError> {
    let characters: Vec<char> = expression.chars().collect();
    let mut lexer = Lexer { characters: &characters, at: 0, expression };
    let mut tokens: Vec<Token> = Vec::new();
    loop {
        while lexer.peek().is_some_and(char::is_whitespace) {
            lexer.at += 1;
        }
        let Some(first) = lexer.peek() else { return Ok(tokens) };
        let token = lexer.next(first, tokens.last())?;
        tokens.push(token);
    }
}

struct Lexer<'a> {
    characters: &'a [char],
    at: usize,
    expression: &'a str,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn error(&self, message: String, start: usize) -> ExpressionError {
        ExpressionError::At { message, position: start + 1, expression: self.expression.to_owned() }
    }

    fn token(&self, kind: Kind, start: usize) -> Token {
        Token { kind, raw: self.characters[start..self.at].iter().collect(), position: start + 1 }
    }

    fn next(&mut self, first: char, before: Option<&Token>) -> Result<Token, ExpressionError> {
        let start = self.at;
        if before.is_some_and(|t| t.kind == Kind::Dot) && first != '*' {
            return self.property(start);
        }
        let single = match first {
            '(' => Some(Kind::Open),
            ')' => Some(Kind::Close),
            '[' => Some(Kind::OpenIndex),
            ']' => Some(Kind::CloseIndex),
            ',' => Some(Kind::Comma),
            '*' => Some(Kind::Star),
            '.' if before.is_some_and(|t| ends_operand(&t.kind)) => Some(Kind::Dot),
            _ => None,
        };
        if let Some(kind) = single {
            self.at += 1;
            return Ok(self.token(kind, start));
        }
        match first {
            '\'' => self.text(start),
            '0'..='9' | '.' | '-' => self.number(start),
            '=' | '<' | '>' | '&' | '|' => Ok(self.symbol(start)),
            '!' if self.characters.get(start + 1) == Some(&'=') => Ok(self.symbol(start)),
            _ => Ok(self.word(start)),
        }
    }

    fn property(&mut self, start: usize) -> Result<Token, ExpressionError> {
        let good = |c: char, first: bool| c == '_' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit());
        while self.peek().is_some_and(|c| good(c, self.at == start)) {
            self.at += 1;
        }
        if self.at > start {
            return Ok(self.token(Kind::Property, start));
        }
        self.skip_word();
        self.at = self.at.max(start + 1);
        let raw: String = self.characters[start..self.at].iter().collect();
        Err(self.error(format!("Unexpected symbol: '{raw}'"), start))
    }

    fn text(&mut self, start: usize) -> Result<Token, ExpressionError> {
        let mut text = String::new();
        self.at += 1;
        loop {
            match (self.peek(), self.characters.get(self.at + 1)) {
                (Some('\''), Some('\'')) => {
                    text.push('\'');
                    self.at += 2;
                }
                (Some('\''), _) => {
                    self.at += 1;
                    return Ok(self.token(Kind::Literal(Value::String(text)), start));
                }
                (Some(c), _) => {
                    text.push(c);
                    self.at += 1;
                }
                (None, _) => {
                    let raw: String = self.characters[start..].iter().collect();
                    return Err(self.error(format!("Unrecognized value: '{raw}'"), start));
                }
            }
        }
    }

    fn number(&mut self, start: usize) -> Result<Token, ExpressionError> {
        while self.peek().is_some_and(|c| !c.is_whitespace() && !"()[],='<>&|".contains(c)) {
            self.at += 1;
        }
        let raw: String = self.characters[start..self.at].iter().collect();
        let decimal = raw.bytes().any(|b| b.is_ascii_digit())
            && raw.bytes().enumerate().all(|(at, b)| b.is_ascii_digit() || b == b'.' || (at == 0 && b == b'-'));
        let value = match raw.matches('.').count() {
            _ if !decimal => None,
            0 | 1 => raw.parse().ok().map(Value::Number),
            _ => parse_version(&raw).map(Value::Version),
        };
        match value {
            Some(value) => Ok(self.token(Kind::Literal(value), start)),
            None => Err(self.error(format!("Unrecognized value: '{raw}'"), start)),
        }
    }

    fn symbol(&mut self, start: usize) -> Token {
        while self.peek().is_some_and(|c| "=!<>&|".contains(c)) {
            self.at += 1;
        }
        self.token(Kind::Symbol, start)
    }

    fn skip_word(&mut self) {
        while self.peek().is_some_and(|c| !c.is_whitespace() && !"()[],.='<>&|".contains(c)) {
            self.at += 1;
        }
    }

    fn word(&mut self, start: usize) -> Token {
        self.skip_word();
        // A character no rule takes is a word of its own, so that reading goes on.
        self.at = self.at.max(start + 1);
        let raw: String = self.characters[start..self.at].iter().collect();
        let kind = if raw.eq_ignore_ascii_case("true") {
            Kind::Literal(Value::Boolean(true))
        } else if raw.eq_ignore_ascii_case("false") {
            Kind::Literal(Value::Boolean(false))
        } else {
            Kind::Name
        };
        self.token(kind, start)
    }
}

fn ends_operand(kind: &Kind) -> bool {
    matches!(kind, Kind::Name | Kind::Property | Kind::Close | Kind::CloseIndex | Kind::Star)
}
