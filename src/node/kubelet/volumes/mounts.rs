//! Mounts of a container: its volumes, the files the kubelet keeps for it, the trust bundle.

use super::Prepared;
use crate::{
    kubelet::{env::expand, shared::Shared},
    runtime::Mount,
};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Component, Path, PathBuf},
};

/// Where images look for certificate authorities: Debian and Alpine, Fedora, and OpenSSL's default.
const TRUST_PATHS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What `SSL_CERT_FILE` names.
pub(in crate::kubelet) const TRUST_FILE: &str = TRUST_PATHS[0];

/// All mounts of a container in order; the message of an error becomes the container's status.
pub(in crate::kubelet) fn mounts(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    volumes: &HashMap<String, Prepared>,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let own: Vec<&str> = container.volume_mounts.iter().flatten().map(|m| m.mount_path.trim_end_matches('/')).collect();
    let taken = |path: &str| own.contains(&path);
    let mut result = Vec::new();
    let mut file = |host: PathBuf, path: &str, readonly: bool| {
        if !taken(path) {
            result.push(Mount { host_path: host, container_path: path.into(), readonly, tmpfs: None });
        }
    };
    file(shared.paths.hosts_file(uid), "/etc/hosts", false);
    file(shared.paths.resolv_conf(uid), "/etc/resolv.conf", false);
    file(shared.paths.hostname_file(uid), "/etc/hostname", false);
    if let Some(bundle) = &shared.trust_bundle {
        for path in TRUST_PATHS {
            // A volume over the folder is the pod's own choice of authorities.
            let hidden = own.iter().any(|m| !m.is_empty() && path.starts_with(&format!("{m}/")));
            if !hidden {
                file(bundle.clone(), path, true);
            }
        }
    }
    let log = shared.paths.termination_log(uid, &container.name, attempt);
    let termination = container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    let termination = termination.unwrap_or("/dev/termination-log");
    prepare_termination_log(&log).map_err(|e| format!("termination log: {e}"))?;
    file(log, termination, false);
    let known: BTreeMap<String, String> = env.iter().cloned().collect();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.get(&mount.name).ok_or_else(|| format!("volume \"{}\" not found", mount.name))?;
        let host_path = sub_path(volume, mount, &known)?;
        result.push(Mount {
            host_path,
            container_path: mount.mount_path.clone().into(),
            readonly: volume.readonly || mount.read_only == Some(true),
            tmpfs: None,
        });
    }
    Ok(result)
}

fn prepare_termination_log(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
    // Whatever user the container runs as may leave its message.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

/// The part of a volume that a mount names, made if missing, and never outside the volume.
fn sub_path(volume: &Prepared, mount: &VolumeMount, env: &BTreeMap<String, String>) -> Result<PathBuf, String> {
    let sub = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(expression), _) if !expression.is_empty() => expand(expression, env),
        (_, Some(path)) if !path.is_empty() => path.clone(),
        _ => return Ok(volume.path.clone()),
    };
    let relative = Path::new(&sub);
    if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("subPath {sub:?} must be relative and without .."));
    }
    let target = volume.path.join(relative);
    if !target.exists() && !volume.readonly {
        std::fs::create_dir_all(&target).map_err(|e| format!("subPath {sub:?}: {e}"))?;
    }
    // Links inside the volume (`..data`) are followed; one that leads out is refused.
    let real = target.canonicalize().map_err(|e| format!("subPath {sub:?}: {e}"))?;
    let root = volume.path.canonicalize().map_err(|e| format!("subPath {sub:?}: {e}"))?;
    match real.starts_with(&root) {
        true => Ok(real),
        false => Err(format!("subPath {sub:?} leads out of volume \"{}\"", mount.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Prepared { path: dir.path().join("v"), readonly: false };
        std::fs::create_dir(&volume.path).unwrap();
        std::os::unix::fs::symlink("/etc", volume.path.join("out")).unwrap();
        let mount = |path: &str| VolumeMount { sub_path: Some(path.into()), ..Default::default() };
        let none = BTreeMap::new();
        assert!(sub_path(&volume, &mount("a/b"), &none).unwrap().ends_with("v/a/b"));
        for bad in ["../x", "/etc", "out/passwd"] {
            assert!(sub_path(&volume, &mount(bad), &none).is_err(), "{bad}");
        }
        let expression = VolumeMount { sub_path_expr: Some("$(POD)".into()), ..Default::default() };
        let env = [("POD".to_owned(), "p1".to_owned())].into();
        assert!(sub_path(&volume, &expression, &env).unwrap().ends_with("v/p1"));
    }
}
