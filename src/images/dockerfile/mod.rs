//! Dockerfiles: text → stages of instructions, with the place of every error.
//!
//! Follows Docker's Dockerfile reference (docs.docker.com/reference/dockerfile).

mod error;
mod expand;
mod instruction;
mod lines;
mod parse;
mod words;

pub use error::{DockerfileError, Source, Span};
pub use expand::{ExpandError, expand, expand_text};
pub use instruction::{CommandLine, Dockerfile, Healthcheck, Instruction, Kind, Run, RunMount, Stage, Transfer};
pub use lines::Heredoc;
pub use parse::{parse, parse_onbuild};

#[cfg(test)]
mod tests;
