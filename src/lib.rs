//! aksim: Azure Kubernetes Service and everything around it, on one machine, offline.
//!
//! # Map
//!
//! Imports go down this list only; the servers never import each other, they meet over their
//! public protocols, as they do in Azure. `tests/it/imports.rs` holds the rule.
//!
//! | module | what it is |
//! | - | - |
//! | [`model`] | nouns shared by two modules or more, no I/O: ids, image references, endpoints, events, world, commands |
//! | [`config`] | `aksim.toml` → validated configuration, all errors at once; `home`: every path aksim uses |
//! | [`runtime`] | component, supervisor, recorder, control API, TLS and CA, HTTP server glue, dialers |
//! | [`kubernetes`] | embedded control plane: schema, store, server (verbs), patch, admission, auth, stream |
//! | [`registry`] | OCI distribution and Azure Container Registry's token exchange |
//! | [`identity`] | Microsoft Entra ID: discovery, keys, tokens, flows, directory |
//! | [`database`] | Azure Database for MySQL flexible server over a real mysqld or mariadbd |
//! | [`node`] | containers, pod network, volumes, kubelet, service proxy, cluster DNS |
//! | [`git`] | Git host: smart HTTP, webhooks, commit statuses |
//! | [`images`] | Dockerfile → OCI image |
//! | [`ingress`] | L7 front door on loopback |
//! | [`controllers`] | kube-rs controllers and the scheduler |
//! | [`cluster`] | cluster providers and rollout |
//! | [`devloop`] | watch, plan, cycle: the inner loop |
//! | [`pipelines`] | Azure Pipelines: `azure-pipelines.yml` → plan → run |
//! | [`scenarios`] | scenario files: load → run; steps, checks, faults |
//! | [`simulator`] | composition root: builds and wires the components of an environment |
//! | [`dashboard`] | terminal dashboard |
//! | [`cli`] | command line |

pub mod cli;
pub mod cluster;
pub mod config;
pub mod controllers;
pub mod dashboard;
pub mod database;
pub mod devloop;
pub mod git;
pub mod identity;
pub mod images;
pub mod ingress;
pub mod kubernetes;
pub mod model;
pub mod node;
pub mod pipelines;
pub mod registry;
pub mod runtime;
pub mod scenarios;
pub mod simulator;
