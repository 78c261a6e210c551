//! The local agent: its work folder and its processes.

pub mod process;
