//! Stand-ins for tests of this module: an API server in a few lines, and a runtime in memory.
//! The real ones meet in `tests/it`.

mod api;
mod runtime;

pub(crate) use api::FakeApi;
pub(crate) use runtime::FakeRuntime;
