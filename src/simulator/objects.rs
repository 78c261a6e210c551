//! Objects that AKS, ACR and the identity platform put into a cluster, applied through its API.

use aksim_cluster::apply::{ENVIRONMENT_LABEL, FIELD_MANAGER};
use aksim_ingress::INGRESS_CLASS;
use aksim_model::endpoint::AzureName;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Secret},
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

/// What AKS and KEP-1755 put into the cluster of every environment.
pub struct SystemObjects {
    /// The registry, which tools that build images look up.
    pub registry: AzureName,
    /// Groups that administer the cluster: name, object id.
    pub admin_groups: Vec<(String, String)>,
}

/// Applies what every environment has; `id` is the environment's.
///
/// # Errors
/// What the API server said.
pub async fn apply_system(client: &Client, id: &str, system: &SystemObjects) -> Result<(), kube::Error> {
    let class = json!({
        "metadata": {"name": INGRESS_CLASS},
        "spec": {"controller": "webapprouting.kubernetes.azure.com/nginx"}
    });
    let (host, port) = (&system.registry.host, system.registry.target.port());
    // KEP-1755: tools that build images look here for the registry.
    let hosting = json!({
        "metadata": {"name": "local-registry-hosting", "namespace": "kube-public"},
        "data": {"localRegistryHosting.v1": format!("host: \"localhost:{port}\"\nhostFromContainerRuntime: \"{host}\"\nhostFromClusterNetwork: \"{host}\"\nhelp: \"https://aksim.dev\"\n")}
    });
    cluster::<IngressClass>(client, id, class).await?;
    namespaced::<ConfigMap>(client, "kube-public", id, hosting).await?;
    for (name, group) in &system.admin_groups {
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
