//! What aksim does to a cluster, through the Kubernetes API alone: read manifests, apply them,
//! wait until the new version answers, write kubeconfig.

pub mod apply;
pub mod deploy;
pub mod kubeconfig;
pub mod manifests;
pub mod pod_failure;
pub mod rollout;
pub mod templates;
pub mod workload;
