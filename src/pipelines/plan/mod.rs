//! A pipeline, expanded: the types, and how they are made from files.

mod model;
mod source;

pub use model::*;
pub use source::{RepositoryRef, SourceError, TemplateSource};
