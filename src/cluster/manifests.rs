//! Manifest files → objects, with the image of the service put in its place.

use aksim_model::{
    advice::{Advice, ExitClass},
    image_ref::ImageRef,
};
use serde_json::Value;
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

/// A Kubernetes object as it is written in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// File it came from.
    pub file: PathBuf,
    /// The object; `apiVersion`, `kind` and `metadata.name` are there.
    pub object: Value,
}

impl Manifest {
    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }
    /// `kind`.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
    /// `metadata.namespace`, else `default`.
    pub fn namespace(&self) -> &str {
        self.object["metadata"]["namespace"].as_str().unwrap_or("default")
    }
}

/// Why manifests cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file or folder that is named does not exist or cannot be read.
    #[error("manifest {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no manifest where they are looked for.
    #[error("no manifest (*.yaml, *.yml, *.json) in {}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// Not YAML.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Yaml {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What the parser says.
        message: String,
    },
    /// YAML, but not a Kubernetes object.
    #[error("{}: document {document}: {message}", path.display())]
    NotAnObject {
        /// Which file.
        path: PathBuf,
        /// Which document of the file, from 1.
        document: usize,
        /// What is missing.
        message: String,
    },
    /// A kustomization or chart, which this release does not render.
    #[error("{}: {what} is not rendered by this release", path.display())]
    NotRendered {
        /// Which file.
        path: PathBuf,
        /// `kustomize` or `helm`.
        what: &'static str,
    },
}

impl Advice for ManifestError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::Read { .. } | Self::Empty { .. } => Some("name the files in `manifests` of the [[service]]"),
            Self::NotRendered { .. } => {
                Some("render it in the service's `build` command and name its output in `manifests`")
            }
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ExitClass {
        ExitClass::Usage
    }
}

/// Reads manifests from files and folders (not recursively), in the order of their names, then
/// in the order in which a cluster wants them: namespaces first, workloads last.
///
/// # Errors
/// [`ManifestError`] for the first file that is not right.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    for path in paths {
        for file in files(path)? {
            read_file(&file, &mut manifests)?;
        }
    }
    manifests.sort_by_key(|m| apply_rank(m.kind()));
    Ok(manifests)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let read = |source| ManifestError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match name.as_str() {
            "kustomization.yaml" | "kustomization.yml" => {
                return Err(ManifestError::NotRendered { path: file, what: "kustomize" });
            }
            "Chart.yaml" => return Err(ManifestError::NotRendered { path: file, what: "helm" }),
            _ => {}
        }
        if [".yaml", ".yml", ".json"].iter().any(|e| name.ends_with(e)) && !name.starts_with('.') {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(ManifestError::Empty { path: path.to_owned() });
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, manifests: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    let text = std::fs::read_to_string(path).map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| {
        let location = error.location();
        let message = error.to_string();
        ManifestError::Yaml {
            path: path.to_owned(),
            line: location.as_ref().map_or(1, |l| l.line()),
            column: location.as_ref().map_or(1, |l| l.column()),
            message: message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        }
    })?;
    for (index, document) in documents.into_iter().enumerate() {
        if document.is_null() {
            continue;
        }
        for object in flatten_list(document) {
            for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
                if object.pointer(pointer).and_then(Value::as_str).is_none_or(str::is_empty) {
                    let key = pointer.trim_start_matches('/').replace('/', ".");
                    return Err(ManifestError::NotAnObject {
                        path: path.to_owned(),
                        document: index + 1,
                        message: format!("`{key}` is missing"),
                    });
                }
            }
            manifests.push(Manifest { file: path.to_owned(), object });
        }
    }
    Ok(())
}

fn flatten_list(document: Value) -> Vec<Value> {
    match document {
        Value::Object(mut map) if map.get("kind").and_then(Value::as_str) == Some("List") => {
            match map.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        other => vec![other],
    }
}

fn apply_rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" | "PriorityClass" | "StorageClass" => 1,
        "ServiceAccount" | "Secret" | "ConfigMap" | "PersistentVolumeClaim" => 2,
        "ClusterRole" | "Role" => 3,
        "ClusterRoleBinding" | "RoleBinding" => 4,
        "Service" => 5,
        "Ingress" | "HorizontalPodAutoscaler" | "PodDisruptionBudget" => 7,
        _ => 6,
    }
}

/// Puts `image` in the place of every container image of the same registry and repository,
/// whatever its tag, as the task `KubernetesManifest@1` does. Returns how many it replaced.
pub fn substitute_image(object: &mut Value, image: &ImageRef) -> usize {
    match object {
        Value::Object(map) => {
            let mut replaced = 0;
            for (key, value) in map.iter_mut() {
                if matches!(key.as_str(), "containers" | "initContainers" | "ephemeralContainers") {
                    for container in value.as_array_mut().into_iter().flatten() {
                        let same = container["image"]
                            .as_str()
                            .and_then(|i| i.parse::<ImageRef>().ok())
                            .is_some_and(|i| i.registry == image.registry && i.repository == image.repository);
                        if same {
                            container["image"] = Value::String(image.to_string());
                            replaced += 1;
                        }
                    }
                } else {
                    replaced += substitute_image(value, image);
                }
            }
            replaced
        }
        Value::Array(items) => items.iter_mut().map(|item| substitute_image(item, image)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn loaded(text: &str) -> Result<Vec<Manifest>, ManifestError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), text).unwrap();
        load(&[dir.path().to_owned()])
    }

    #[test]
    fn documents_come_in_the_order_a_cluster_wants() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
        let kinds: Vec<_> = loaded(text).unwrap().iter().map(|m| m.kind().to_owned()).collect();
        assert_eq!(kinds, ["ConfigMap", "Deployment"]);
    }

    #[test]
    fn errors_name_file_and_line() {
        let error = loaded("apiVersion: v1\nkind: [\n").unwrap_err();
        assert!(matches!(error, ManifestError::Yaml { line, .. } if line >= 2), "{error}");
        let error = loaded("kind: Pod\nmetadata: {name: x}\n").unwrap_err();
        assert!(error.to_string().contains("`apiVersion` is missing"), "{error}");
    }

    #[test]
    fn only_the_own_image_is_replaced() {
        let mut object = json!({"spec": {"template": {"spec": {"containers": [
            {"image": "shopacr.azurecr.io/web:v1"}, {"image": "shopacr.azurecr.io/web-proxy:v1"}, {"image": "busybox"}
        ]}}}});
        let image: ImageRef = "shopacr.azurecr.io/web:new".parse().unwrap();
        assert_eq!(substitute_image(&mut object, &image), 1);
        let containers = &object["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers[0]["image"], "shopacr.azurecr.io/web:new");
        assert_eq!(containers[1]["image"], "shopacr.azurecr.io/web-proxy:v1");
    }
}
