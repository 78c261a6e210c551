//! Tokens → tree. The language has no operators: literals, names, calls, and `.`, `[ ]`, `*` after them.

use super::{
    ExpressionError, Scope, Value,
    functions::arity,
    lexer::{Kind, Token, tokens},
};

/// Longest expression that is read, in characters.
pub const MAX_LENGTH: usize = 21_000;
/// Deepest nesting of calls and indexes, as in Azure.
pub const MAX_DEPTH: usize = 50;

/// A part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// A literal.
    Literal(Value),
    /// A named value.
    Name(String),
    /// A call.
    Call(String, Vec<Tree>),
    /// An operand and what follows it.
    Chain(Box<Tree>, Vec<Link>),
}

/// A step from a value into it.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// `.name`
    Property(String),
    /// `[expression]`
    Index(Tree),
    /// `.*` and `[*]`
    Star,
}

/// Reads an expression; names are checked against the scope.
///
/// # Errors
/// The first mistake.
pub fn parse(expression: &str, scope: &dyn Scope) -> Result<Tree, ExpressionError> {
    if expression.chars().count() > MAX_LENGTH {
        return Err(ExpressionError::TooLong(MAX_LENGTH));
    }
    let expression = expression.trim();
    if expression.is_empty() {
        return Err(ExpressionError::Empty);
    }
    let tokens = tokens(expression)?;
    let mut parser = Parser { tokens: &tokens, at: 0, expression, scope, unknown: None };
    let tree = parser.operand(1)?;
    if let Some(rest) = parser.peek() {
        return Err(parser.unexpected(rest));
    }
    // A name is looked up only when the rest is well formed.
    parser.unknown.map_or(Ok(tree), Err)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    expression: &'a str,
    scope: &'a dyn Scope,
    unknown: Option<ExpressionError>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn peek_is(&self, kind: &Kind) -> bool {
        self.peek().is_some_and(|t| t.kind == *kind)
    }

    fn error(&self, message: String, position: usize) -> ExpressionError {
        ExpressionError::At { message, position, expression: self.expression.to_owned() }
    }

    fn unexpected(&self, token: &Token) -> ExpressionError {
        self.error(format!("Unexpected symbol: '{}'", token.raw), token.position)
    }

    fn unrecognized(&mut self, token: &Token) {
        let error = self.error(format!("Unrecognized value: '{}'", token.raw), token.position);
        self.unknown.get_or_insert(error);
    }

    fn operand(&mut self, depth: usize) -> Result<Tree, ExpressionError> {
        if depth > MAX_DEPTH {
            return Err(ExpressionError::TooDeep(MAX_DEPTH));
        }
        let Some(token) = self.peek() else {
            let (raw, position) = self.tokens.last().map_or(("", 1), |t| (t.raw.as_str(), t.position));
            return Err(self.error(format!("Unexpected symbol: '{raw}'"), position));
        };
        self.at += 1;
        let base = match &token.kind {
            Kind::Literal(value) => return Ok(Tree::Literal(value.clone())),
            Kind::Name if self.peek_is(&Kind::Open) => self.call(token, depth)?,
            Kind::Name => {
                let function = arity(&token.raw).or_else(|| self.scope.function(&token.raw));
                if self.scope.context(&token.raw).is_none() {
                    if function.is_some() {
                        let message = format!("Expected '(' to follow a function: '{}'", token.raw);
                        return Err(self.error(message, token.position));
                    }
                    self.unrecognized(token);
                }
                Tree::Name(token.raw.clone())
            }
            _ => return Err(self.unexpected(token)),
        };
        let links = self.links(depth)?;
        Ok(if links.is_empty() { base } else { Tree::Chain(Box::new(base), links) })
    }

    fn call(&mut self, name: &Token, depth: usize) -> Result<Tree, ExpressionError> {
        self.at += 1;
        let allowed = arity(&name.raw).or_else(|| self.scope.function(&name.raw));
        if allowed.is_none() {
            self.unrecognized(name);
        }
        let (fewest, most) = allowed.map_or((0, usize::MAX), |range| (*range.start(), *range.end()));
        let mut arguments = Vec::new();
        let unclosed = || self.error(format!("Unclosed function: '{}'", name.raw), name.position);
        let unclosed = unclosed();
        loop {
            let Some(token) = self.peek() else { return Err(unclosed) };
            match token.kind {
                Kind::Close if arguments.is_empty() || self.tokens[self.at - 1].kind != Kind::Comma => {
                    if arguments.len() < fewest {
                        return Err(self.unexpected(token));
                    }
                    self.at += 1;
                    return Ok(Tree::Call(name.raw.clone(), arguments));
                }
                Kind::Comma if !arguments.is_empty() && self.tokens[self.at - 1].kind != Kind::Comma => {
                    if arguments.len() >= most {
                        return Err(self.unexpected(token));
                    }
                    self.at += 1;
                    if self.peek().is_none() {
                        return Err(unclosed);
                    }
                }
                _ if !arguments.is_empty() && self.tokens[self.at - 1].kind != Kind::Comma => {
                    return Err(self.unexpected(token));
                }
                _ if arguments.len() >= most => return Err(self.unexpected(token)),
                _ => arguments.push(self.operand(depth + 1)?),
            }
        }
    }

    fn links(&mut self, depth: usize) -> Result<Vec<Link>, ExpressionError> {
        let mut links = Vec::new();
        while let Some(token) = self.peek() {
            match token.kind {
                Kind::Dot => {
                    self.at += 1;
                    links.push(self.after_dot(token)?);
                }
                Kind::OpenIndex => {
                    self.at += 1;
                    if self.peek_is(&Kind::Star) {
                        self.at += 1;
                        links.push(Link::Star);
                    } else {
                        links.push(Link::Index(self.operand(depth + 1)?));
                    }
                    match self.peek() {
                        Some(close) if close.kind == Kind::CloseIndex => self.at += 1,
                        Some(other) => return Err(self.unexpected(other)),
                        None => return Err(self.error("Unclosed indexer: '['".to_owned(), token.position)),
                    }
                }
                _ => break,
            }
        }
        Ok(links)
    }

    fn after_dot(&mut self, dot: &Token) -> Result<Link, ExpressionError> {
        let Some(token) = self.peek() else {
            let message = "Expected a property name to follow the dereference operator '.': '.'".to_owned();
            return Err(self.error(message, dot.position));
        };
        self.at += 1;
        match token.kind {
            Kind::Property => Ok(Link::Property(token.raw.clone())),
            Kind::Star => Ok(Link::Star),
            _ => Err(self.unexpected(token)),
        }
    }
}
