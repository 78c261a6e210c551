//! What aksim does to a cluster, through the Kubernetes API alone: read manifests, apply them,
//! wait until the new version answers, write kubeconfig. [`provider`] is the contract for what has no API: how a
//! cluster comes up and goes; those who fulfil it are crates of their own in `providers/`.

pub mod apply;
pub mod deploy;
pub mod kubeconfig;
pub mod manifests;
pub mod pod_failure;
pub mod processes;
pub mod provider;
pub mod rollout;
pub mod templates;
pub mod workload;
