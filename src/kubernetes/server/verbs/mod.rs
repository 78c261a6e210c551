//! One handler a verb, driven by the resource tables.

pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod options;
pub mod patch;
pub mod update;
pub mod watch;
