//! YAML text → [`Scenario`](super::Scenario): every problem at once, each with its place.

mod kinds;
mod read;
mod tree;

pub use read::parse;
