//! The local agent: its work folder, its processes and its git.

pub mod git;
pub mod pool;
pub mod process;
