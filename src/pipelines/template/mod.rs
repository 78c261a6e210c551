//! Templates and `${{ }}`: files → expanded nodes, a level at a time.
//!
//! A pipeline is not expanded in one go: what `${{ variables.x }}` gives depends on the stage and job it stands
//! in, so a node is kept with its surroundings ([`Lazy`]) until a reader asks for its items, entries or text.

mod expand;
mod include;
mod origin;
mod parameters;
mod source;
mod text;

pub use source::{RepositoryRef, SourceError, TemplateSource};

use crate::{
    error::{Location, PipelineError},
    expression::{Object, Scope, Value, same_text},
    yaml::{Mark, Node},
};
use aksim_model::suggest::nearest;
use std::{collections::HashMap, rc::Rc, sync::Arc};

/// Units of work (nodes, evaluations, 64 bytes of text) one pipeline may cost: what keeps nested loops finite.
const MAX_WORK: usize = 400_000;

/// A file of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileRef {
    /// Alias of its repository, `self` for the pipeline's own.
    pub repository: String,
    /// Path from the root of the repository.
    pub path: String,
}

/// What surrounds a node in its file.
#[derive(Debug)]
pub struct Env {
    /// The file.
    pub file: FileRef,
    /// Parameters of the file.
    pub parameters: Value,
    /// Loop variables, the innermost last.
    pub locals: Vec<(String, Value)>,
}

/// Variables known at a place.
pub type Variables = Arc<Object>;

/// A node that is not expanded yet.
#[derive(Clone, Debug)]
pub struct Lazy {
    /// The node.
    pub node: Rc<Node>,
    /// Its file, parameters and loop variables.
    pub env: Rc<Env>,
    /// Variables known there.
    pub variables: Variables,
}

impl Lazy {
    /// The same node where other variables are known.
    pub fn with(&self, variables: &Variables) -> Self {
        Self { variables: Arc::clone(variables), ..self.clone() }
    }

    /// Another node at the same place.
    pub fn at(&self, node: Rc<Node>) -> Self {
        Self { node, ..self.clone() }
    }

    /// Where it is written.
    pub fn location(&self) -> Location {
        self.node.mark.location()
    }
}

impl Scope for Lazy {
    fn context(&self, name: &str) -> Option<Value> {
        if let Some((_, value)) = self.env.locals.iter().rev().find(|(local, _)| same_text(local, name)) {
            return Some(value.clone());
        }
        match name.to_ascii_lowercase().as_str() {
            "parameters" => Some(self.env.parameters.clone()),
            "variables" => Some(Value::Object(Arc::clone(&self.variables))),
            _ => None,
        }
    }
}

/// A key that belongs to the `if` before it: `elseif` or `else`.
pub fn continues_chain(key: &Node) -> bool {
    key.scalar().and_then(text::directive).is_some_and(|found| matches!(found.word, "elseif" | "else"))
}

/// One entry of a mapping, its key expanded.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub mark: Mark,
    /// The value.
    pub value: Lazy,
}

/// A mapping a reader takes keys from; what is left is not expected.
#[derive(Debug)]
pub struct Map {
    /// Where it begins.
    pub mark: Mark,
    entries: Vec<Entry>,
    asked: Vec<&'static str>,
}

impl Map {
    /// Takes a key's value.
    pub fn take(&mut self, key: &'static str) -> Option<Lazy> {
        self.asked.push(key);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at).value)
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All that was not taken, for mappings whose keys are the author's.
    pub fn rest(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }
}

/// Reads files and expands them; collects what is wrong.
pub struct Loader<'a> {
    files: &'a dyn TemplateSource,
    /// Everything wrong so far.
    pub errors: Vec<PipelineError>,
    /// `resources: repositories`, by alias: name and ref.
    pub repositories: HashMap<String, (String, String)>,
    parsed: HashMap<FileRef, Option<Rc<Node>>>,
    origins: origin::Origins,
    work: usize,
    depth: usize,
}

impl<'a> Loader<'a> {
    /// A loader that has read nothing.
    pub fn new(files: &'a dyn TemplateSource) -> Self {
        Self {
            files,
            errors: Vec::new(),
            repositories: HashMap::new(),
            parsed: HashMap::new(),
            origins: origin::Origins::default(),
            work: 0,
            depth: 0,
        }
    }

    /// Notes a mistake.
    pub fn error(&mut self, mark: &Mark, message: impl Into<String>) {
        self.errors.push(PipelineError::new(mark.location(), message));
    }

    /// Notes a mistake and what to do.
    pub fn error_hint(&mut self, mark: &Mark, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(PipelineError::new(mark.location(), message).hint(hint));
    }

    /// Counts work; false once the limit is passed, and then nothing more is expanded.
    pub fn spend(&mut self, units: usize, mark: &Mark) -> bool {
        let within = self.work <= MAX_WORK;
        self.work = self.work.saturating_add(units);
        if within && self.work > MAX_WORK {
            self.error_hint(mark, "Maximum object size exceeded", "loops or parameters make the pipeline too large");
        }
        self.work <= MAX_WORK
    }

    /// What was not taken from a mapping is not expected there.
    pub fn finish(&mut self, mut map: Map) {
        for entry in map.rest() {
            let error = PipelineError::new(entry.mark.location(), format!("Unexpected value '{}'", entry.key));
            self.errors.push(match nearest(&entry.key, map.asked.iter().copied()) {
                Some(near) => error.hint(format!("did you mean '{near}'?")),
                None => error,
            });
        }
    }
}
