//! YAML text → [`Scenario`](super::Scenario): every problem at once, each with its place.

mod check;
mod read;
mod tree;

pub use read::parse;
