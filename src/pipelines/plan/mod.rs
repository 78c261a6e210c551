//! A pipeline, expanded: the types, and how they are made from files.

pub mod fidelity;
mod graph;
mod model;
mod outline;
mod read;
mod render;
pub mod tasks;
mod trigger;

pub use graph::is_name;
pub use model::*;
pub use outline::outline;
pub use read::load;
pub use render::final_yaml;
