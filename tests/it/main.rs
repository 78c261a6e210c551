//! One integration binary: real environments on free ports in temporary homes, side by side.
#![expect(clippy::disallowed_methods, reason = "a test's tasks and threads end with it")]

mod architecture;
mod bad_environment;
mod bad_input;
mod container_jobs;
mod containers;
mod controllers;
mod database;
mod demo;
mod environment;
mod git;
mod identity;
mod images;
mod imports;
mod kubectl;
mod kubectl_debug;
mod kubectl_workloads;
mod pipelines;
mod provider;
mod registry;
mod rollout;
mod rootless;
mod scenarios;
mod storage;
mod support;
mod third_party_ci;
mod workloads;
