//! aksim: Azure Kubernetes Service and everything around it, on one machine, offline.
//!
//! This page is the architecture, for who changes aksim; `README.md` is for who uses it, and
//! `CONTRIBUTING.md` says how to build and test.
//!
//! # Map
//!
//! A workspace: each folder of `src/` is a crate, shown here as a module. A crate depends on crates of
//! lower floors only, and on none of its own floor: the servers never know each other, they meet over
//! their public protocols, as they do in Azure. The modules inside `kubernetes` and `pipelines` have floors
//! too. `tests/it/imports.rs` holds all floors.
//!
//! | floor | module | what it is |
//! | - | - | - |
//! | 1 | [`model`] | nouns shared by two crates or more, no I/O: ids, image references, events, world, commands, quantities |
//! | 2 | [`config`] | `aksim.toml` → validated configuration, all errors at once; `home`: every path aksim uses |
//! | 2 | [`runtime`] | component, supervisor, recorder, control API, TLS and CA, HTTP server glue, dialers, folders of volumes |
//! | 3 | [`kubernetes`] | embedded control plane: schema, store, request, server (verbs), patch, admission, auth, stream |
//! | 3 | [`registry`] | OCI distribution and Azure Container Registry's token exchange |
//! | 3 | [`identity`] | Microsoft Entra ID: discovery, keys, tokens, flows, directory |
//! | 3 | [`database`] | Azure Database for MySQL flexible server over a real mysqld or mariadbd |
//! | 3 | [`node`] | containers, pod network, volumes, kubelet, service proxy, cluster DNS |
//! | 3 | [`git`] | Git host: smart HTTP, webhooks, commit statuses |
//! | 3 | [`images`] | Dockerfile → OCI image |
//! | 3 | [`ingress`] | L7 front door on loopback |
//! | 3 | [`dashboard`] | terminal dashboard; sees floors 1 and 2 only, as any client of the control API does |
//! | 4 | [`controllers`] | kube-rs controllers and the scheduler |
//! | 4 | [`cluster`] | what is done to a cluster through the Kubernetes API; the contract of its providers |
//! | 5 | [`devloop`] | watch, plan, cycle: the inner loop |
//! | 5 | [`pipelines`] | Azure Pipelines: `azure-pipelines.yml` → plan → run |
//! | 6 | `cluster/providers/*` | clusters that workloads may run in, a crate each, behind [`cluster::provider`]; seen by [`simulator`] alone |
//! | 6 | [`scenarios`] | scenario files: load → run; steps, checks, faults |
//! | 7 | [`simulator`] | composition root: builds and wires the components of an environment |
//! | 8 | [`cli`] | command line |
//!
//! # Data flow
//!
//! What is mirrored: the eight rows of Azure's "microservices with AKS" architecture. Each is a scenario
//! that runs as a test, and what the reference says AKS brings (horizontal scaling, self-healing, load
//! balancing, secret management) is one each.
//!
//! | row | in Azure | here |
//! | - | - | - |
//! | 1 | a developer commits to GitHub | Git over smart HTTP, with webhooks |
//! | 2 | GitHub triggers a build on Azure DevOps | signed push webhook → pipeline service |
//! | 3 | Azure DevOps packages containers, pushes to ACR | runner of `azure-pipelines.yml`, image builder, OCI registry |
//! | 4 | containers are deployed to AKS | deployment through the Kubernetes API |
//! | 5 | users reach services by apps and website | load balancer and ingress on loopback |
//! | 6 | Azure AD secures access | OIDC/OAuth2 issuer; RBAC on cluster, registry, ingress |
//! | 7 | microservices use a database | MySQL over TLS, one schema and user a service |
//! | 8 | the administrator uses a separate admin portal | dashboard; web portal (not there yet) |
//!
//! # Principles
//!
//! 1. Real clients decide: a protocol is done when clients that others wrote work against it.
//! 2. Work is called, facts are published. The inner loop is one readable async function; events only
//!    inform. Controllers read the store and are level-triggered.
//! 3. One way to deploy: everything that touches a cluster goes through the Kubernetes API.
//! 4. Data before code: kinds, verbs, columns, merge keys, tasks, faults are tables; code is per verb.
//! 5. Nothing is asked of the machine: no Docker, no root, no host DNS change, loopback only, free ports.
//!    What is missing is said once, with the way to get it.
//! 6. The user's things are theirs: kubeconfig is merged under a lock, only our own context is touched and
//!    given back; images, containers and files carry the environment's id, and only those are removed.
//! 7. A silent difference is the worst fault: what is accepted has its effect, or `aksim fidelity` and a
//!    warning at the moment of use name it.
//!
//! # Running parts
//!
//! A [`runtime::component::Component`] is bound first, so that its port is known, and then run by the
//! [`runtime::supervisor::Supervisor`]: one task each, a readiness, a cancellation, a deadline; stopped in
//! reverse order. Nobody else starts detached tasks (`clippy.toml`). The
//! [`runtime::recorder::Recorder`] is the single writer of events: it numbers them, appends them to
//! `events.jsonl`, applies them to the [`model::world::World`] and publishes that. The control API
//! ([`runtime::control`]: HTTP on a Unix socket) gives snapshot, stream and commands; command line,
//! dashboard and tests use it alone.
//!
//! A **journey** ([`model::journey`]) is the trace of one change from its cause to the first request it
//! serves: saved → (committed → webhook → queued) → built → pushed → applied → scheduled → pulled → started
//! → ready → endpoint → served.
//!
//! State is in `$AKSIM_HOME`, else `$XDG_STATE_HOME/aksim/NAME` ([`config::home`]); files are written under a
//! temporary name and renamed. `kill -9` at any moment loses nothing acknowledged; `aksim up` continues.
//!
//! # Embedded cluster
//!
//! `TLS/HTTP2 → authn → impersonation → authz → request info → codec → generic verb handler → strategy →
//! admission → store → watch hub`. The schema is a compressed table of Kubernetes 1.36's definitions plus
//! `resources.toml` by hand; it drives routing, discovery, OpenAPI, pruning, validation, patches and the
//! protobuf codec. The store acknowledges a write when it is in the log; a LIST's items and revision come
//! from one moment. A node starts containers by its own re-exec shim, which outlives the daemon.
//!
//! # Exit codes
//!
//! 0 success · 1 failure · 2 usage or configuration · 3 the machine lacks something · 4 deadline passed ·
//! 5 a check or scenario failed · 70 a bug of aksim · 130 interrupted. Data on stdout, logs on stderr.
//!
//! # Recipes
//!
//! Each is one new file and one line elsewhere, and is held by a contract test that is there already.
//!
//! | to add | write | and name it in | held by |
//! | - | - | - | - |
//! | a Kubernetes resource | its `[[resource]]` in `src/kubernetes/schema/resources.toml` | nothing else | `cargo test -p aksim-kubernetes` |
//! | a cluster provider | the crate `src/cluster/providers/NAME/` with a [`cluster::provider::ClusterKind`] | [`simulator::PROVIDERS`] and [`config::project::CLUSTER_PROVIDERS`], once it is a dependency | `contract` in `tests/it/provider.rs` |
//! | a part of an environment | `src/simulator/NAME.rs` with a `Part`, or a `Server` of a component | the list in `src/simulator/start.rs` | `tests/it/environment.rs` |
//! | a controller | `src/controllers/NAME.rs` with `register` and `reconcile`; decisions in a pure `plan` | the list in `src/controllers/lib.rs` | `tests/it/controllers.rs` |
//! | a pipeline task | `src/pipelines/steps/NAME.rs` with a `Task`; inputs and versions in `src/pipelines/plan/tasks.toml` | its row in `src/pipelines/steps/mod.rs` | the tests of that file |
//! | a fault, check or step of scenarios | `src/scenarios/{faults,checks,steps}/NAME.rs` | its row in the `TABLE` of that folder's `mod.rs` | `cargo test -p aksim-scenarios` |
//! | a scenario | `scenarios/NAME.yaml` | nothing else | `tests/it/scenarios.rs` |
//! | a tab of the dashboard | `src/dashboard/tabs/NAME.rs` with a `View` | its line in `src/dashboard/tabs/mod.rs` | snapshots in `src/dashboard` |
//! | a verb of the command line | `src/cli/NAME.rs` | its arguments in `src/cli/args.rs` and its line in `dispatch` | `tests/it` |

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
