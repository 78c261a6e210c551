//! What is emulated, as data. A gap that is closed is a line changed here.

use serde::Serialize;

/// How an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// As in Azure, for the clients that are tested.
    Works,
    /// There, but behaves otherwise; the note says how.
    Differs,
    /// Not there.
    Gap,
}

impl Standing {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Differs => "differs",
            Self::Gap => "gap",
        }
    }
}

/// How to see that a project uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detect {
    /// It concerns every project.
    Always,
    /// It cannot be seen in manifests.
    Never,
    /// An object of one of these kinds.
    Kind(&'static [&'static str]),
    /// This key somewhere in an object.
    Key(&'static str),
    /// An annotation with this prefix.
    Annotation(&'static str),
}

/// One feature.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Area: a module of the map of `src/lib.rs`.
    pub area: &'static str,
    /// The feature, in the field's words.
    pub feature: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What a user has to know.
    pub note: &'static str,
    /// How it is seen.
    #[serde(skip)]
    pub detect: Detect,
}

const fn entry(
    area: &'static str,
    feature: &'static str,
    standing: Standing,
    detect: Detect,
    note: &'static str,
) -> Entry {
    Entry { area, feature, standing, note, detect }
}

use Detect::{Always, Annotation, Key, Kind, Never};
use Standing::{Differs, Gap, Works};

/// All features, by area.
pub const ENTRIES: &[Entry] = &[
    entry("cluster", "API server of Kubernetes 1.36", Works, Never, "built-in kinds; kubectl, kube-rs"),
    entry("cluster", "Deployment, ReplicaSet, Job, HPA v2, EndpointSlice, garbage collection", Works, Never, ""),
    entry(
        "cluster",
        "StatefulSet, DaemonSet, CronJob, PodDisruptionBudget and eviction",
        Works,
        Never,
        "kubectl rollout, drain, cordon",
    ),
    entry("cluster", "ResourceQuota, LimitRange", Works, Kind(&["ResourceQuota", "LimitRange"]), ""),
    entry("cluster", "CustomResourceDefinition", Gap, Kind(&["CustomResourceDefinition"]), "refused"),
    entry(
        "cluster",
        "admission webhooks and policies",
        Gap,
        Kind(&["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy"]),
        "stored, not called",
    ),
    entry("cluster", "NetworkPolicy", Gap, Kind(&["NetworkPolicy"]), "stored, not enforced"),
    entry("cluster", "providers kind, k3s, context", Gap, Never, "the embedded cluster alone"),
    entry(
        "cluster",
        "control plane",
        Differs,
        Always,
        "one process without etcd; writes survive kill -9, a power loss may lose the last ones",
    ),
    entry(
        "node",
        "PersistentVolumeClaim, StorageClass",
        Differs,
        Kind(&["PersistentVolumeClaim", "PersistentVolume", "StorageClass"]),
        "volumes are folders of the environment: sizes are recorded, not enforced; no VolumeAttachment, so a disk is not \
         refused to a second node of its zone; a disk or share that is named but missing is made",
    ),
    entry(
        "node",
        "block volumes, VolumeSnapshot, cloned volumes",
        Gap,
        Kind(&["VolumeSnapshot"]),
        "claims stay pending",
    ),
    entry(
        "node",
        "kubectl debug node/NAME",
        Differs,
        Never,
        "the pod has the node's files and network, not its processes",
    ),
    entry("node", "azureFile, azureDisk and NFS volumes", Gap, Key("azureFile"), "pods get a FailedMount event"),
    entry(
        "node",
        "csi volumes inline in pods, or of other drivers",
        Gap,
        Key("csi"),
        "pods get a FailedMount event; PersistentVolumes of Azure's disk and file drivers work",
    ),
    entry("node", "seccomp, AppArmor and SELinux profiles", Gap, Key("seccompProfile"), "accepted, not applied"),
    entry(
        "node",
        "CA in pods",
        Differs,
        Always,
        "the environment's CA is mounted at the usual places so that Azure names are trusted",
    ),
    entry("node", "egress", Differs, Always, "pods reach the environment's Azure names, not the internet"),
    entry("node", "virtual machine sizes, zones", Differs, Never, "labels only: all nodes share this machine"),
    entry(
        "network",
        "Service of type LoadBalancer",
        Differs,
        Annotation("service.beta.kubernetes.io/azure-"),
        "an address on loopback; Azure annotations are kept as data",
    ),
    entry(
        "network",
        "ingress class webapprouting.kubernetes.azure.com",
        Differs,
        Kind(&["Ingress"]),
        "HTTPS on one loopback port; NGINX annotations have no effect",
    ),
    entry("registry", "OCI distribution 1.1, ACR token exchange", Works, Never, "skopeo, oras"),
    entry("registry", "geo-replication, tasks, quarantine, webhooks", Gap, Never, ""),
    entry("identity", "Entra ID v2.0: code + PKCE, client credentials, device code, refresh", Works, Never, "MSAL"),
    entry("identity", "consent, conditional access, MFA", Gap, Never, "sign-in never asks for them"),
    entry("identity", "on-behalf-of, Microsoft Graph", Gap, Never, ""),
    entry(
        "identity",
        "browser on the host",
        Differs,
        Always,
        "login.microsoftonline.com is login.microsoftonline.com.localhost at the ingress's port",
    ),
    entry("identity", "workload identity", Gap, Annotation("azure.workload.identity/"), "annotations are kept as data"),
    entry(
        "database",
        "Azure Database for MySQL flexible server",
        Differs,
        Always,
        "a local MySQL or MariaDB; `aksim status` says which",
    ),
    entry("database", "high availability, replicas, backups", Gap, Never, ""),
    entry("images", "Dockerfile builds", Works, Never, "builtin engine; unknown instructions are errors"),
    entry("images", "Docker engine", Gap, Never, "the builtin engine alone"),
    entry("git", "smart HTTP, tokens, protected branches, webhooks and statuses as GitHub's", Works, Never, "git"),
    entry(
        "git",
        "access to repositories",
        Differs,
        Never,
        "read, write or admin for the whole host; every repository is private",
    ),
    entry("git", "pull requests, forks, Git LFS, web pages, events but push and ping", Gap, Never, ""),
    entry(
        "pipelines",
        "Azure Pipelines YAML and its tasks",
        Differs,
        Never,
        "`aksim pipeline plan --fidelity` names what a pipeline uses that differs or is missing, with file and line",
    ),
    entry(
        "pipelines",
        "container jobs, service containers, step targets",
        Differs,
        Never,
        "containers are pods in a namespace of the job; tasks other than scripts run on this machine",
    ),
    entry("pipelines", "AzureCLI@2", Gap, Never, "refused"),
    entry("azure", "Azure Resource Manager, az", Gap, Never, ""),
    entry("portal", "web admin portal of aksim", Gap, Never, "the shop's own admin portal is there"),
    entry("scenarios", "faults pod-kill, container-kill, node-drain", Works, Never, "named as in Chaos Mesh and AKS"),
    entry(
        "scenarios",
        "fault node-failure",
        Differs,
        Never,
        "containers are killed before their network goes, so open connections are reset, not left hanging",
    ),
    entry(
        "scenarios",
        "faults pod-failure, network-*, dns-*, http-*, stress-*, io-*, time-offset",
        Gap,
        Never,
        "refused by name",
    ),
    entry(
        "scenarios",
        "faults zone-outage, spot-eviction, pool-upgrade, registry-outage, database-failover, key-rotation, token-expiry",
        Gap,
        Never,
        "refused by name",
    ),
    entry("lab", "labs with grades, snapshots", Gap, Never, "`aksim scenario run NAME` waits for the steps of a lab"),
];
