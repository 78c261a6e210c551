//! What steps write: logging commands, masked secrets, log files.

pub mod command;
pub mod mask;
