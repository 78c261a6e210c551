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

pub use aksim_cli as cli;
pub use aksim_cluster as cluster;
pub use aksim_config as config;
pub use aksim_controllers as controllers;
pub use aksim_dashboard as dashboard;
pub use aksim_database as database;
pub use aksim_devloop as devloop;
pub use aksim_git as git;
pub use aksim_identity as identity;
pub use aksim_images as images;
pub use aksim_ingress as ingress;
pub use aksim_kubernetes as kubernetes;
pub use aksim_model as model;
pub use aksim_node as node;
pub use aksim_pipelines as pipelines;
pub use aksim_registry as registry;
pub use aksim_runtime as runtime;
pub use aksim_scenarios as scenarios;
pub use aksim_simulator as simulator;
