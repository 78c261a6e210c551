//! Objects that the embedded cluster begins with, beyond those of its API server.

use aksim_cluster::apply::{ENVIRONMENT_LABEL, FIELD_MANAGER};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// Address of cluster DNS, as in AKS.
pub const CLUSTER_DNS: &str = "10.0.0.10";

/// Applies the Service of cluster DNS, whose server is no pod here.
pub async fn apply_dns(client: &Client, environment: &str) -> Result<(), kube::Error> {
    let dns = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true",
            ENVIRONMENT_LABEL: environment}},
        "spec": {"clusterIP": CLUSTER_DNS, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]}
    });
    let services = Api::<Service>::namespaced(client.clone(), "kube-system");
    services.patch("kube-dns", &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&dns)).await?;
    Ok(())
}
