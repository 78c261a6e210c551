//! The local agent: its work folder, its processes, its containers and its git.

pub mod command_line;
pub mod containers;
pub mod git;
pub mod pool;
pub mod process;
