//! Real containers on Linux namespaces, as root and as an ordinary user.

mod basics;
mod lifetime;
mod process;
mod registry;
mod rootless;
mod streams;
pub mod support;
