//! Requests at a constant rate, whatever becomes of the earlier ones (open model): a server that is
//! slow is asked no less, and latency counts from when a request was due, not from when it was sent.

mod generator;
mod record;

pub use generator::{Load, LoadSpec};
pub use record::{Record, Sample, Summary};
