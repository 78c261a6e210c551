//! Rules of kinds: what a write may and does change beyond what the client sent.
//!
//! Metadata, status and generation follow from the resource tables ([`metadata`]). What single
//! kinds add is a row of [`RULES`]: functions that fill fields in, and functions that validate.

mod budgets;
pub mod deletion;
pub mod metadata;
mod names;
mod objects;
mod pods;
mod rollouts;
mod schedules;
mod services;
mod volumes;
mod workloads;

pub use services::Reserved;

use super::api::Api;
use crate::{
    admission::{Change, Part},
    request::{
        status::{ApiError, Cause},
        target::Target,
    },
};
use serde_json::Value;
use std::sync::Arc;

type Prepare = fn(&Change<'_>, &mut Value) -> Result<(), ApiError>;
type Validate = fn(&Change<'_>, &Value, &mut Vec<Cause>);

/// What a kind adds to the general rules.
struct Rule {
    tables: &'static [&'static str],
    prepare: &'static [Prepare],
    validate: &'static [Validate],
}

const RULES: &[Rule] = &[
    Rule { tables: &["pods"], prepare: &[pods::prepare], validate: &[pods::validate] },
    Rule { tables: &["services"], prepare: &[services::prepare], validate: &[services::validate] },
    Rule {
        tables: &["deployments.apps", "replicasets.apps"],
        prepare: &[],
        validate: &[workloads::validate_selector, workloads::validate_template],
    },
    Rule {
        tables: &["statefulsets.apps"],
        prepare: &[],
        validate: &[workloads::validate_selector, workloads::validate_template, rollouts::validate_stateful_set],
    },
    Rule {
        tables: &["daemonsets.apps"],
        prepare: &[rollouts::prepare_daemon_set],
        validate: &[workloads::validate_selector, workloads::validate_template, rollouts::validate_daemon_set],
    },
    Rule { tables: &["replicationcontrollers"], prepare: &[], validate: &[workloads::validate_template] },
    Rule {
        tables: &["jobs.batch"],
        prepare: &[workloads::prepare_job],
        validate: &[workloads::validate_job, workloads::validate_template],
    },
    Rule { tables: &["cronjobs.batch"], prepare: &[], validate: &[schedules::validate] },
    Rule { tables: &["controllerrevisions.apps"], prepare: &[], validate: &[rollouts::validate_revision] },
    Rule { tables: &["poddisruptionbudgets.policy"], prepare: &[], validate: &[budgets::validate] },
    Rule { tables: &["namespaces"], prepare: &[objects::prepare_namespace], validate: &[] },
    Rule { tables: &["secrets"], prepare: &[objects::prepare_secret], validate: &[objects::validate_secret] },
    Rule { tables: &["configmaps"], prepare: &[], validate: &[objects::validate_config_map] },
    Rule {
        tables: &["rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io"],
        prepare: &[objects::prepare_binding],
        validate: &[objects::validate_role_ref],
    },
    Rule {
        tables: &["persistentvolumeclaims", "persistentvolumes"],
        prepare: &[objects::prepare_volume],
        validate: &[],
    },
    Rule { tables: &["persistentvolumeclaims"], prepare: &[], validate: &[volumes::validate_claim] },
    Rule { tables: &["persistentvolumes"], prepare: &[], validate: &[volumes::validate_volume] },
    Rule {
        tables: &["certificatesigningrequests.certificates.k8s.io"],
        prepare: &[objects::prepare_signing_request],
        validate: &[],
    },
    Rule { tables: &["events"], prepare: &[], validate: &[objects::validate_event] },
    Rule {
        tables: &["priorityclasses.scheduling.k8s.io"],
        prepare: &[],
        validate: &[objects::validate_priority_class],
    },
];

fn rules<'a>(table: &'a str) -> impl Iterator<Item = &'static Rule> + 'a {
    RULES.iter().filter(move |rule| rule.tables.contains(&table))
}

/// Fills in what the server decides, and takes addresses; they go back when the result is dropped
/// without [`Reserved::keep`].
///
/// # Errors
/// Whatever makes that impossible (no address left, one that is taken).
pub fn prepare(api: &Arc<Api>, change: &Change<'_>, value: &mut Value) -> Result<Reserved, ApiError> {
    for rule in rules(&change.target.table_name) {
        for prepare in rule.prepare {
            prepare(change, value)?;
        }
    }
    if change.target.table_name == "services" && change.part == Part::Whole {
        return services::reserve(api, change, value);
    }
    Ok(Reserved::default())
}

/// What is wrong with an object; empty when nothing is.
pub fn validate(change: &Change<'_>, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    metadata::validate(change, value, &mut causes);
    if change.part == Part::Whole {
        for rule in rules(&change.target.table_name) {
            for validate in rule.validate {
                validate(change, value, &mut causes);
            }
        }
    }
    if change.part == Part::EphemeralContainers
        && let Some(old) = change.old
    {
        pods::validate_ephemeral(old, value, &mut causes);
    }
    causes
}

/// Called after an object was replaced: gives back addresses it no longer holds.
pub fn replaced(api: &Api, change: &Change<'_>, value: &Value) {
    if let Some(old) = change.old.filter(|_| change.target.table_name == "services") {
        api.addresses.release_unused(old, value);
    }
}

/// Called after an object was removed.
pub fn removed(api: &Api, target: &Target, last: &Value) {
    if target.table_name == "services" {
        api.addresses.release(last);
    }
}
