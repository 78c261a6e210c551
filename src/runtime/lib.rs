//! What every running part shares: lifecycle, events, TLS, HTTP glue, dialers, files.

pub mod component;
pub mod control;
pub mod files;
pub mod http;
pub mod net;
pub mod oidc;
pub mod pki;
pub mod process;
pub mod recorder;
pub mod supervisor;
pub mod volumes;
