//! Claims and persistent volumes: what must be given, what stays.

use super::Change;
use crate::request::status::Cause;
use aksim_model::quantity::Amount;
use serde_json::Value;

/// Access modes of volumes.
const MODES: [&str; 4] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];

fn validate_modes(path: &str, value: &Value, causes: &mut Vec<Cause>) {
    let modes = value["spec"]["accessModes"].as_array().map_or(&[][..], Vec::as_slice);
    if modes.is_empty() {
        causes.push(Cause::required(format!("{path}.accessModes"), "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter(|mode| !mode.as_str().is_some_and(|mode| MODES.contains(&mode))) {
        causes.push(Cause::not_supported(format!("{path}.accessModes"), mode, &MODES));
    }
}

/// A claim says what it needs, and only its size changes, upwards.
pub fn validate_claim(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    const SIZE: &str = "spec.resources[storage]";
    validate_modes("spec", value, causes);
    let size = |claim: &Value| Amount::of(&claim["spec"]["resources"]["requests"]["storage"]);
    let wanted = size(value);
    if wanted.is_none_or(|size| size.nanos() <= 0) {
        causes.push(Cause::required(SIZE, ""));
    }
    let Some(old) = change.old else { return };
    let fixed = |claim: &Value| {
        let mut spec = claim["spec"].clone();
        spec["resources"] = Value::Null;
        spec["volumeAttributesClassName"] = Value::Null;
        // The binder fills these in once.
        if old["spec"]["volumeName"].as_str().unwrap_or_default().is_empty() {
            spec["volumeName"] = Value::Null;
        }
        if old["spec"]["storageClassName"].is_null() {
            spec["storageClassName"] = Value::Null;
        }
        spec
    };
    if fixed(old) != fixed(value) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
             bound claims";
        causes.push(Cause::forbidden("spec", detail));
    }
    let given = Amount::of(&old["status"]["capacity"]["storage"]).or(size(old));
    let shrinks = |wanted: Amount| size(old).is_some_and(|old| wanted.nanos() < old.nanos());
    let below = |wanted: Amount| given.is_some_and(|given| wanted.nanos() < given.nanos());
    if wanted.is_some_and(|wanted| shrinks(wanted) && below(wanted)) {
        let detail = "field can not be less than status.capacity";
        causes.push(Cause::forbidden("spec.resources.requests.storage", detail));
    }
}

/// Sources of volumes, in the words of the API.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// A volume has a size and one source, which stays.
pub fn validate_volume(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    validate_modes("spec", value, causes);
    let spec = &value["spec"];
    if Amount::of(&spec["capacity"]["storage"]).is_none() {
        causes.push(Cause::required("spec.capacity", ""));
    }
    let sources: Vec<&&str> = SOURCES.iter().filter(|source| !spec[**source].is_null()).collect();
    match sources.as_slice() {
        [] => causes.push(Cause::required("spec", "must specify a volume type")),
        [_] => {}
        [_, further @ ..] => {
            for source in further {
                let detail = "may not specify more than 1 volume type";
                causes.push(Cause::forbidden(format!("spec.{source}"), detail));
            }
        }
    }
    if sources.as_slice() == [&"local"] && spec["nodeAffinity"].is_null() {
        causes.push(Cause::required("spec.nodeAffinity", "Local volume requires node affinity"));
    }
    let Some(old) = change.old else { return };
    if SOURCES.iter().any(|source| old["spec"][*source] != spec[*source]) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        causes.push(Cause::forbidden("spec.persistentvolumesource", detail));
    }
}
