//! The inner loop: a saved file becomes a served request.
//!
//! `watch` tells what was saved, `plan` what follows from it, `cycle` does it in one readable
//! function; [`DevLoop`] runs cycles, one a service at a time, a newer save taking over.

pub mod build_command;
pub mod cycle;
pub mod fingerprint;
pub mod logs;
pub mod plan;
pub mod service_loop;
pub mod watch;

pub use cycle::{BuildLine, Cycle, CycleContext, CycleError, FileSync, LineSink, Packager};
pub use service_loop::DevLoop;
