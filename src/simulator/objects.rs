//! Objects that AKS, ACR and the identity platform put into a cluster, applied through its API.

use super::environment::Environment;
use aksim_cluster::apply::{ENVIRONMENT_LABEL, FIELD_MANAGER};
use aksim_ingress::INGRESS_CLASS;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Secret, Service},
    networking::v1::IngressClass,
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::fmt::Debug;

/// Address of cluster DNS, as in AKS.
pub const CLUSTER_DNS: &str = "10.0.0.10";

/// Applies what every environment has.
///
/// # Errors
/// What the API server said.
pub async fn apply_system(client: &Client, environment: &Environment) -> Result<(), kube::Error> {
    let id = &environment.id;
    let dns = json!({
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"}},
        "spec": {"clusterIP": CLUSTER_DNS, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]}
    });
    let class = json!({
        "metadata": {"name": INGRESS_CLASS},
        "spec": {"controller": "webapprouting.kubernetes.azure.com/nginx"}
    });
    // KEP-1755: tools that build images look here for the registry.
    let hosting = json!({
        "metadata": {"name": "local-registry-hosting", "namespace": "kube-public"},
        "data": {"localRegistryHosting.v1": format!("host: \"localhost:{}\"\nhostFromContainerRuntime: \"{}\"\nhostFromClusterNetwork: \"{}\"\nhelp: \"https://aksim.dev\"\n",
            environment.registry.target.port(), environment.registry.host, environment.registry.host)}
    });
    namespaced::<Service>(client, "kube-system", id, dns).await?;
    cluster::<IngressClass>(client, id, class).await?;
    namespaced::<ConfigMap>(client, "kube-public", id, hosting).await?;
    for (name, group) in &environment.admin_groups {
        let binding = json!({
            "metadata": {"name": format!("aks-cluster-admin-binding-{name}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]
        });
        cluster::<ClusterRoleBinding>(client, id, binding).await?;
    }
    Ok(())
}

/// A Secret that the environment makes for a service.
#[derive(Clone, Debug)]
pub struct ServiceSecret {
    /// Namespaces of the service's workloads.
    pub namespaces: Vec<String>,
    /// Name.
    pub name: String,
    /// Keys and values.
    pub values: Vec<(String, String)>,
}

/// Applies the Secrets of the services, making namespaces that only manifests name.
///
/// # Errors
/// What the API server said.
pub async fn apply_secrets(client: &Client, id: &str, secrets: &[ServiceSecret]) -> Result<(), kube::Error> {
    for secret in secrets {
        let values: serde_json::Map<String, Value> =
            secret.values.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
        for namespace in &secret.namespaces {
            if Api::<Namespace>::all(client.clone()).get_opt(namespace).await?.is_none() {
                cluster::<Namespace>(client, id, json!({"metadata": {"name": namespace}})).await?;
            }
            let object = json!({
                "metadata": {"name": secret.name, "namespace": namespace}, "type": "Opaque", "stringData": values
            });
            namespaced::<Secret>(client, namespace, id, object).await?;
        }
    }
    Ok(())
}

async fn namespaced<K>(client: &Client, namespace: &str, id: &str, object: Value) -> Result<(), kube::Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + k8s_openapi::Resource
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug,
    <K as Resource>::DynamicType: Default,
{
    apply(Api::<K>::namespaced(client.clone(), namespace), id, object).await
}

async fn cluster<K>(client: &Client, id: &str, object: Value) -> Result<(), kube::Error>
where
    K: Resource<Scope = k8s_openapi::ClusterResourceScope>
        + k8s_openapi::Resource
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug,
    <K as Resource>::DynamicType: Default,
{
    apply(Api::<K>::all(client.clone()), id, object).await
}

async fn apply<K>(api: Api<K>, id: &str, mut object: Value) -> Result<(), kube::Error>
where
    K: k8s_openapi::Resource + Clone + DeserializeOwned + Debug,
{
    object["apiVersion"] = <K as k8s_openapi::Resource>::API_VERSION.into();
    object["kind"] = <K as k8s_openapi::Resource>::KIND.into();
    object["metadata"]["labels"][ENVIRONMENT_LABEL] = id.into();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await?;
    Ok(())
}
