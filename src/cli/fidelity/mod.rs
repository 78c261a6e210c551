//! `aksim fidelity`: what a project uses that is not there or behaves otherwise than in Azure.

mod table;

use super::{
    args::FidelityArgs,
    context::Context,
    failure::Failure,
    output::{self, Table},
};
use aksim_cluster::manifests;
use serde::Serialize;
use serde_json::Value;
use table::{Detect, ENTRIES, Entry, Standing};

/// An entry with what it was found in.
#[derive(Serialize)]
struct Finding {
    #[serde(flatten)]
    entry: &'static Entry,
    /// `file: kind/name`, or empty when it concerns every project.
    found_in: Vec<String>,
}

/// Prints the entries that concern the project, or all.
pub fn run(context: &Context, args: &FidelityArgs) -> Result<(), Failure> {
    let findings = if args.all {
        ENTRIES.iter().map(|entry| Finding { entry, found_in: vec![] }).collect()
    } else {
        concerning(context)?
    };
    let table = |wide: bool| {
        let mut table = match wide {
            true => Table::new(&["AREA", "FEATURE", "STANDING", "NOTE", "FOUND IN"]),
            false => Table::new(&["AREA", "FEATURE", "STANDING", "NOTE"]),
        };
        for finding in &findings {
            let Entry { area, feature, standing, note, .. } = finding.entry;
            let cells = [area, feature, standing.name(), note].map(str::to_owned);
            table.row(cells.into_iter().chain([finding.found_in.join(", ")]));
        }
        table
    };
    output::data(args.output.output, &findings, table, || findings.iter().map(|f| f.entry.feature.to_owned()).collect())
}

fn concerning(context: &Context) -> Result<Vec<Finding>, Failure> {
    let config = context.config()?;
    let mut objects = Vec::new();
    for service in &config.services {
        for manifest in manifests::load(&service.manifests).map_err(Failure::other)? {
            let file = manifest.file.strip_prefix(&config.root).unwrap_or(&manifest.file).display().to_string();
            let place = format!("{file}: {}/{}", manifest.kind(), manifest.name());
            objects.push((place, manifest.object));
        }
    }
    let find = |entry: &'static Entry| {
        let found_in: Vec<String> = objects
            .iter()
            .filter(|(_, object)| detects(&entry.detect, object))
            .map(|(place, _)| place.clone())
            .collect();
        let concerns = matches!(entry.detect, Detect::Always) || !found_in.is_empty();
        (concerns && !matches!(entry.standing, Standing::Works)).then_some(Finding { entry, found_in })
    };
    Ok(ENTRIES.iter().filter_map(find).collect())
}

fn detects(detect: &Detect, object: &Value) -> bool {
    match detect {
        Detect::Always | Detect::Never => false,
        Detect::Kind(kinds) => kinds.iter().any(|k| object["kind"] == *k),
        Detect::Key(key) => has_key(object, key),
        Detect::Annotation(prefix) => {
            let annotations = object["metadata"]["annotations"].as_object();
            annotations.is_some_and(|a| a.keys().any(|k| k.starts_with(prefix)))
        }
    }
}

fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(k, v)| k == key || has_key(v, key)),
        Value::Array(items) => items.iter().any(|item| has_key(item, key)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_keys_and_annotations_are_found() {
        let object = json!({"kind": "StatefulSet", "metadata": {"annotations": {"service.beta.kubernetes.io/azure-dns-label-name": "x"}},
            "spec": {"template": {"spec": {"volumes": [{"azureFile": {}}]}}}});
        assert!(detects(&Detect::Kind(&["StatefulSet"]), &object));
        assert!(detects(&Detect::Key("azureFile"), &object));
        assert!(detects(&Detect::Annotation("service.beta.kubernetes.io/azure-"), &object));
        assert!(!detects(&Detect::Key("persistentVolumeClaim"), &object));
    }
}
