//! The API server: one handler a verb, driven by the resource tables.
//!
//! | module | subject |
//! | - | - |
//! | [`api`] | the request chain and what requests share |
//! | [`verbs`] | get, list, watch, create, update, patch, delete |
//! | [`subresources`] | status, scale, binding, eviction, token, … |
//! | [`computed`] | reviews and other resources that are not stored |
//! | [`strategy`] | rules of kinds |
//! | [`non_resource`] | version, health, discovery, OpenAPI |
//! | [`bootstrap`] | what a new cluster starts with |
//! | [`component`] | [`ApiServer`]: binding, running, in-process clients |

pub mod addresses;
pub mod api;
pub mod bootstrap;
pub mod component;
pub mod computed;
pub mod metrics;
pub mod metrics_text;
pub mod non_resource;
pub mod response;
pub mod strategy;
pub mod subresources;
pub mod verbs;

pub use component::{ApiServer, ApiServerConfig, ApiServerError};

#[cfg(test)]
mod kubectl_tests;
#[cfg(test)]
mod tests;
