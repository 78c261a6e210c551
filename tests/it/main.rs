//! One integration binary: real environments on free ports in temporary homes, side by side.

mod bad_environment;
mod bad_input;
mod containers;
mod controllers;
mod database;
mod demo;
mod environment;
mod identity;
mod images;
mod imports;
mod kubectl;
mod kubectl_debug;
mod registry;
mod rollout;
mod rootless;
mod storage;
mod support;
