//! Holds what cargo cannot say of the map in `src/lib.rs`: a crate depends on crates of lower floors alone, so that the
//! servers never know each other and meet over their protocols, as they do in Azure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The floors, lowest first. A crate may depend on any crate of a lower floor and on none of its own.
const FLOORS: &[&[&str]] = &[
    &["model"],
    &["config", "runtime"],
    &["kubernetes", "registry", "identity", "database", "node", "images", "git", "ingress", "dashboard"],
    &["controllers", "cluster"],
    &["devloop", "pipelines"],
    &["scenarios", PROVIDERS],
    &["simulator"],
    &["cli"],
];

/// Every crate in `src/cluster/providers`: nobody but the simulator depends on one.
const PROVIDERS: &str = "provider-*";

/// Crates that may depend on less than their floor: they see the environment as its users do, or are one of
/// several that a user chooses from.
const ONLY: &[(&str, &[&str])] = &[
    ("dashboard", &["model", "config", "runtime"]),
    (PROVIDERS, &["model", "config", "runtime", "kubernetes", "node", "controllers", "cluster"]),
];

/// A crate as the tables above call it.
fn listed(name: &str) -> &str {
    if name.starts_with("provider-") { PROVIDERS } else { name }
}

fn source() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Our own crates among the dependencies of a manifest, those of tests left out: tests may meet other
/// servers, as clients do.
fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    let names = table.into_iter().flat_map(toml::Table::keys);
    names.filter_map(|name| name.strip_prefix("aksim-").map(str::to_owned)).collect()
}

/// Crates by name, with our own crates among their dependencies.
fn manifests() -> BTreeMap<String, Vec<String>> {
    let folders = |of: std::path::PathBuf| {
        let entries = std::fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let read = |folder: &Path, prefix: &str| {
        let name = format!("{prefix}{}", folder.file_name().unwrap().to_string_lossy());
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))
            .unwrap_or_else(|error| panic!("{name} is no member of the workspace: {error}"));
        assert!(manifest.contains(&format!("name = \"aksim-{name}\"\n")), "{}: its name", folder.display());
        (name, dependencies(&manifest))
    };
    let crates = folders(source());
    let providers = folders(source().join("cluster/providers"));
    let crates = crates.iter().map(|folder| read(folder, ""));
    crates.chain(providers.iter().map(|folder| read(folder, "provider-"))).collect()
}

#[test]
fn dependencies_go_down_only() {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&listed(name)));
    let mut wrong = Vec::new();
    let members = manifests();
    let names: BTreeSet<&str> = members.keys().map(|name| listed(name)).collect();
    assert_eq!(names, FLOORS.iter().copied().flatten().copied().collect(), "FLOORS and src/ differ");
    for (name, dependencies) in &members {
        let own = floor(name).unwrap_or_else(|| panic!("{name} has no floor"));
        let only = ONLY.iter().find(|(narrow, _)| *narrow == listed(name)).map(|(_, may)| *may);
        for other in dependencies {
            let below = floor(other).is_some_and(|floor| floor < own);
            let chosen = listed(other) != PROVIDERS || name == "simulator";
            if !below || !chosen || only.is_some_and(|may| !may.contains(&other.as_str())) {
                wrong.push(format!("{name} may not depend on {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn dependencies_are_read() {
    let manifest = "[dependencies]\naksim-model.workspace = true\nserde = \"1\"\n[dev-dependencies]\naksim-git = \"1\"";
    assert_eq!(dependencies(manifest), ["model"]);
}
