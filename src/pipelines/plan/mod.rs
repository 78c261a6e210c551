//! A pipeline, expanded: the types, and how they are made from files.

mod graph;
mod model;
mod outline;
mod read;
mod render;
mod source;
pub mod tasks;
mod trigger;

pub use graph::is_name;
pub use model::*;
pub use outline::outline;
pub use read::load;
pub use render::final_yaml;
pub use source::{RepositoryRef, SourceError, TemplateSource};
