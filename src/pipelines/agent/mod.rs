//! The local agent: its work folder, its processes, its containers and its git.

pub mod containers;
pub mod git;
pub mod pool;
pub mod process;
