//! YAML as Azure Pipelines reads it: one document, every node with its place, scalars as their source text.
//!
//! Azure refuses anchors, complex keys, duplicate keys (without case) and a second document; so does this.

mod node;
mod parse;

pub use node::{Kind, Mark, Node, Style};
pub use parse::parse;
