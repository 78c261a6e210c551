//! Real containers on Linux namespaces.

mod basics;
mod support;
