//! Merging our context into a kubeconfig, and taking it out again.

use aksim_runtime::files::{PRIVATE, create_private_dir, write_atomic};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How a client authenticates.
#[derive(Clone, Debug)]
pub enum User {
    /// Client certificate and key, PEM.
    Certificate {
        /// Certificate.
        certificate_pem: String,
        /// Key.
        key_pem: String,
    },
    /// A program that prints an `ExecCredential`.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// A cluster to reach.
#[derive(Clone, Debug)]
pub struct Context {
    /// Name of context, cluster and user: `aksim-NAME`.
    pub name: String,
    /// URL of the API server.
    pub server: String,
    /// CA, PEM.
    pub ca_pem: String,
    /// Credentials.
    pub user: User,
}

/// Why a kubeconfig cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML; it is left alone.
    #[error("{}: not a kubeconfig: {message}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// Another program holds the lock.
    #[error("{} is locked by another program ({} exists)", path.display(), lock.display())]
    Locked {
        /// The kubeconfig.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
}

/// The kubeconfig that kubectl would write to: first of `$KUBECONFIG`, else `~/.kube/config`.
pub fn default_path() -> Option<PathBuf> {
    let from_env = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty());
    match from_env {
        Some(list) => std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty()),
        None => std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config")),
    }
}

/// A whole kubeconfig with `context` alone, as YAML.
pub fn render(context: &Context) -> String {
    let mut config = empty();
    put(&mut config, context);
    config["current-context"] = context.name.clone().into();
    to_yaml(&config)
}

/// Adds or replaces our context in the file and makes it the current one.
/// Returns the context that was current before, if it was another's.
///
/// # Errors
/// [`KubeconfigError`]; the file is then as it was.
pub fn merge(path: &Path, context: &Context) -> Result<Option<String>, KubeconfigError> {
    change(path, |config| {
        put(config, context);
        let before =
            config["current-context"].as_str().filter(|c| !c.is_empty() && *c != context.name).map(str::to_owned);
        config["current-context"] = context.name.clone().into();
        before
    })
}

/// Takes our context out. If it is the current one, `previous` becomes current when it still
/// exists, else none. A file without it is not written.
///
/// # Errors
/// [`KubeconfigError`]; the file is then as it was.
pub fn remove(path: &Path, name: &str, previous: Option<&str>) -> Result<(), KubeconfigError> {
    // Looked at before the lock too, which is a file: the disk may be full.
    if read(path)?.is_none_or(|config| !names(&config, name)) {
        return Ok(());
    }
    change(path, |config| {
        for list in LISTS {
            if let Some(entries) = config[list].as_array_mut() {
                entries.retain(|entry| entry["name"] != name);
            }
        }
        if config["current-context"] == name {
            let exists = previous
                .filter(|p| config["contexts"].as_array().is_some_and(|list| list.iter().any(|c| c["name"] == **p)));
            config["current-context"] = exists.unwrap_or_default().into();
        }
    })
}

fn change<T>(path: &Path, edit: impl FnOnce(&mut Value) -> T) -> Result<T, KubeconfigError> {
    let file = |source| KubeconfigError::File { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        create_private_dir(parent).map_err(file)?;
    }
    let _lock = Lock::take(path)?;
    let mut config = read(path)?.unwrap_or_else(empty);
    let result = edit(&mut config);
    write_atomic(path, to_yaml(&config).as_bytes(), PRIVATE).map_err(file)?;
    Ok(result)
}

/// What the file says; `None` where there is none, or nothing in it.
fn read(path: &Path) -> Result<Option<Value>, KubeconfigError> {
    let malformed = |message: String| KubeconfigError::Malformed { path: path.to_owned(), message };
    let text = match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(KubeconfigError::File { path: path.to_owned(), source }),
    };
    let config = serde_saphyr::from_str::<Value>(&text).map_err(|e| malformed(e.to_string()))?;
    if config.is_object() { Ok(Some(config)) } else { Err(malformed("not a mapping".into())) }
}

/// Whether something in the file is called `name`.
fn names(config: &Value, name: &str) -> bool {
    let entries = LISTS.iter().filter_map(|list| config[*list].as_array()).flatten();
    config["current-context"] == name || entries.into_iter().any(|entry| entry["name"] == name)
}

/// Where a context leaves its parts.
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

fn empty() -> Value {
    json!({"apiVersion": "v1", "kind": "Config", "preferences": {}, "clusters": [], "contexts": [], "users": [],
           "current-context": ""})
}

fn to_yaml(config: &Value) -> String {
    // A JSON value always has a YAML form.
    serde_saphyr::to_string(config).unwrap_or_else(|_| config.to_string())
}

fn put(config: &mut Value, context: &Context) {
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let user = match &context.user {
        User::Certificate { certificate_pem, key_pem } => {
            json!({"client-certificate-data": base64(certificate_pem), "client-key-data": base64(key_pem)})
        }
        User::Exec { command } => json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": command.first().cloned().unwrap_or_default(),
            "args": command.get(1..).unwrap_or_default(),
            "interactiveMode": "IfAvailable",
            "provideClusterInfo": false
        }}),
    };
    let name = &context.name;
    let cluster = json!({"server": context.server, "certificate-authority-data": base64(&context.ca_pem)});
    put_entry(config, "clusters", json!({"name": name, "cluster": cluster}));
    put_entry(config, "users", json!({"name": name, "user": user}));
    put_entry(config, "contexts", json!({"name": name, "context": {"cluster": name, "user": name}}));
}

fn put_entry(config: &mut Value, list: &str, entry: Value) {
    if !config[list].is_array() {
        config[list] = json!([]);
    }
    let Some(entries) = config[list].as_array_mut() else { return };
    match entries.iter_mut().find(|e| e["name"] == entry["name"]) {
        Some(existing) => *existing = entry,
        None => entries.push(entry),
    }
}

/// The lock file that client-go uses: `FILE.lock`, made with `O_EXCL`.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, KubeconfigError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let lock = path.with_file_name(name);
        let until = Instant::now() + Duration::from_secs(2);
        loop {
            match std::fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    if Instant::now() > until {
                        return Err(KubeconfigError::Locked { path: path.to_owned(), lock });
                    }
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "client-go's lock has no wait; it is held for milliseconds"
                    )]
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(source) => return Err(KubeconfigError::File { path: lock, source }),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If it is gone, somebody has broken the lock; nothing to mend here.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Context {
        Context {
            name: "aksim-shop".into(),
            server: "https://127.0.0.1:6443".into(),
            ca_pem: "CA".into(),
            user: User::Exec { command: vec!["aksim".into(), "token".into()] },
        }
    }

    #[test]
    fn others_are_left_alone_and_the_previous_context_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let before = "apiVersion: v1\nkind: Config\ncurrent-context: work\ncontexts:\n- name: work\n  context: {cluster: c, user: u, extra: kept}\nclusters: []\nusers: []\n";
        std::fs::write(&path, before).unwrap();
        assert_eq!(merge(&path, &ours()).unwrap().as_deref(), Some("work"));
        let merged: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(merged["current-context"], "aksim-shop");
        assert_eq!(merged["contexts"][0]["context"]["extra"], "kept");
        remove(&path, "aksim-shop", Some("work")).unwrap();
        let restored: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let original: Value = serde_saphyr::from_str(before).unwrap();
        assert_eq!(restored, original);
    }

    /// Another program may hold the lock, and the disk may be full: there is nothing to do.
    #[test]
    fn what_has_been_given_back_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let before = "kind: Config # theirs\ncurrent-context: work\n";
        std::fs::write(&path, before).unwrap();
        std::fs::write(dir.path().join("config.lock"), "").unwrap();
        remove(&path, "aksim-shop", None).unwrap();
        remove(&dir.path().join("missing"), "aksim-shop", None).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        assert!(!dir.path().join("missing").exists());
    }

    #[test]
    fn what_is_not_a_kubeconfig_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, "{ not yaml").unwrap();
        assert!(matches!(merge(&path, &ours()), Err(KubeconfigError::Malformed { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ not yaml");
    }
}
