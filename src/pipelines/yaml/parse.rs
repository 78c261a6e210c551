//! Events of the YAML parser → nodes.

use super::{Kind, Mark, Node, Style};
use crate::error::PipelineError;
use granit_parser::{Event, Options, Parser, ScalarStyle, Span};
use std::{collections::HashSet, rc::Rc, sync::Arc};

/// Longest file that is read, in bytes. Azure's limit for a whole pipeline is 20 MB of memory.
const MAX_BYTES: usize = 4 << 20;
/// Deepest nesting. Azure's is 100 (`Maximum object depth exceeded`).
const MAX_DEPTH: usize = 100;

/// Reads a file. `None` for a file without content.
///
/// Every duplicate key and anchor is an error of its own; a syntax error ends the reading.
///
/// # Errors
/// What is wrong, with places in `file`.
pub fn parse(text: &str, file: &str) -> Result<Option<Node>, Vec<PipelineError>> {
    let file: Arc<str> = file.into();
    let whole = Mark { file: Arc::clone(&file), line: 0, column: 0 };
    if text.len() > MAX_BYTES {
        let message = format!("The file is larger than {MAX_BYTES} bytes");
        return Err(vec![PipelineError::new(whole.location(), message)]);
    }
    let mut options = Options::default();
    options.emit_anchor_events = true;
    options.block_nesting_limit = MAX_DEPTH + 2;
    options.flow_nesting_limit = MAX_DEPTH + 2;
    let mut builder = Builder { file, errors: Vec::new(), open: Vec::new(), root: None, documents: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                if let Err(error) = builder.take(event, span) {
                    builder.errors.push(error);
                    return Err(builder.errors);
                }
            }
            Err(error) => {
                let mark = builder.mark_at(error.marker().line(), error.marker().col());
                let message = sentence(&error.info());
                builder.errors.push(PipelineError::new(mark.location(), message));
                return Err(builder.errors);
            }
        }
    }
    if builder.errors.is_empty() { Ok(builder.root) } else { Err(builder.errors) }
}

/// Parser messages begin small; Azure's do not.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

struct Builder {
    file: Arc<str>,
    errors: Vec<PipelineError>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

/// A collection that has not ended.
struct Open {
    mark: Mark,
    parts: Parts,
}

enum Parts {
    Sequence(Vec<Rc<Node>>),
    Mapping { entries: Vec<(Rc<Node>, Rc<Node>)>, key: Option<Rc<Node>>, seen: HashSet<String> },
}

impl Builder {
    fn mark_at(&self, line: usize, column: usize) -> Mark {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Mark { file: Arc::clone(&self.file), line: small(line), column: small(column + 1) }
    }

    fn mark(&self, span: &Span) -> Mark {
        self.mark_at(span.start.line(), span.start.col())
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), PipelineError> {
        let mark = self.mark(&span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(PipelineError::new(mark.location(), "Expected stream end parse event")
                        .hint("a pipeline is one YAML document; remove the `---` between documents"));
                }
            }
            Event::Scalar(text, style, ..) => {
                let missing = matches!(style, ScalarStyle::Plain) && span.is_empty();
                let style = if matches!(style, ScalarStyle::Plain) { Style::Plain } else { Style::Quoted };
                let text = if missing { String::new() } else { text.into_owned() };
                self.add(Node { kind: Kind::Scalar(text, style), mark })?;
            }
            Event::SequenceStart(..) => self.begin(mark, Parts::Sequence(Vec::new()))?,
            Event::MappingStart(..) => {
                self.begin(mark, Parts::Mapping { entries: Vec::new(), key: None, seen: HashSet::new() })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Anchor(_, name) => {
                let message = format!("Anchors are not currently supported. Remove the anchor '{name}'");
                self.errors.push(PipelineError::new(mark.location(), message).hint("use a template with parameters"));
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                // The anchor is already reported; the node keeps its place so that reading goes on.
                self.add(Node { kind: Kind::Scalar(String::new(), Style::Plain), mark })?;
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, mark: Mark, parts: Parts) -> Result<(), PipelineError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(PipelineError::new(mark.location(), "Maximum object depth exceeded"));
        }
        self.open.push(Open { mark, parts });
        Ok(())
    }

    fn end(&mut self) -> Result<(), PipelineError> {
        let Some(Open { mark, parts }) = self.open.pop() else { return Ok(()) };
        let kind = match parts {
            Parts::Sequence(items) => Kind::Sequence(items),
            Parts::Mapping { entries, .. } => Kind::Mapping(entries),
        };
        self.add(Node { kind, mark })
    }

    fn add(&mut self, node: Node) -> Result<(), PipelineError> {
        let Some(open) = self.open.last_mut() else {
            self.root = (!node.is_empty()).then_some(node);
            return Ok(());
        };
        match &mut open.parts {
            Parts::Sequence(items) => items.push(Rc::new(node)),
            Parts::Mapping { entries, key, seen } => match key.take() {
                Some(key) => entries.push((key, Rc::new(node))),
                None => {
                    let Some(name) = node.scalar() else {
                        return Err(PipelineError::new(node.mark.location(), "Expected a scalar value")
                            .hint("complex keys are not supported"));
                    };
                    // A directive may stand twice; what it gives is checked when it is expanded.
                    if !name.trim_start().starts_with("${{") && !seen.insert(name.to_lowercase()) {
                        let message = format!("'{name}' is already defined");
                        self.errors.push(PipelineError::new(node.mark.location(), message));
                    }
                    *key = Some(Rc::new(node));
                }
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        parse(text, "a.yml").unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn places_and_source_text() {
        let node = parse("a:\n  - True\n  - '1'\nb: 007\nc:\n", "a.yml").unwrap().unwrap();
        let items = node.get("a").unwrap();
        let Kind::Sequence(items) = &items.kind else { panic!("{items:?}") };
        assert_eq!(items[0].scalar(), Some("True"));
        assert_eq!((items[1].mark.line, items[1].mark.column), (3, 5));
        assert_eq!(items[1].value(), Value::from("1"));
        assert_eq!(node.get("b").unwrap().scalar(), Some("007"));
        assert!(node.get("c").unwrap().is_empty());
    }

    use crate::expression::Value;

    #[test]
    fn what_azure_refuses() {
        assert_eq!(errors("a: 1\nA: 2\n"), ["a.yml:2:1: 'A' is already defined"]);
        assert_eq!(
            errors("a: &x 1\nb: *x\n"),
            ["a.yml:1:4: Anchors are not currently supported. Remove the anchor 'x'"]
        );
        assert_eq!(errors("a: 1\n---\nb: 1\n"), ["a.yml:2:1: Expected stream end parse event"]);
        assert_eq!(errors("? [a]\n: b\n"), ["a.yml:1:3: Expected a scalar value"]);
        let deep: String = (0..150).map(|n| " ".repeat(n) + "a:\n").collect();
        assert_eq!(errors(&deep), ["a.yml:101:101: Maximum object depth exceeded"]);
        assert_eq!(errors(&"[".repeat(500)).len(), 1);
        assert!(parse("---\na: 1\n...\n", "a.yml").unwrap().is_some());
        assert!(parse("# nothing\n", "a.yml").unwrap().is_none());
    }
}
