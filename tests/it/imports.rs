//! Holds DESIGN §3: imports go down only, and servers never import each other.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Which modules each module may name by `crate::`, besides itself.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let base = ["model", "config", "runtime"];
    let servers = ["kubernetes", "registry", "identity", "database", "node", "images", "git", "ingress"];
    let with = |more: &[&'static str]| base.iter().chain(more).copied().collect::<Vec<_>>();
    let mut table = BTreeMap::from([
        ("model", vec![]),
        ("runtime", vec!["model"]),
        ("config", vec!["model", "runtime"]),
        ("dashboard", with(&[])),
        ("controllers", with(&servers)),
        ("cluster", with(&servers)),
    ]);
    for server in servers {
        // Ingress, like a controller of the cluster, may not know any server either.
        table.insert(server, with(&[]));
    }
    let below_devloop: Vec<&str> = servers.iter().copied().chain(["controllers", "cluster"]).collect();
    table.insert("devloop", with(&below_devloop));
    table.insert("pipelines", with(&below_devloop));
    let below_scenarios: Vec<&str> = below_devloop.iter().copied().chain(["devloop"]).collect();
    table.insert("scenarios", with(&below_scenarios));
    let below_simulator: Vec<&str> = below_scenarios.iter().copied().chain(["scenarios", "pipelines"]).collect();
    table.insert("simulator", with(&below_simulator));
    let below_cli: Vec<&str> = below_simulator.iter().copied().chain(["simulator", "dashboard"]).collect();
    table.insert("cli", with(&below_cli));
    table
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Modules named after `crate::` in a source text, also in nested use groups.
fn named(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut word, mut fresh) = (0, String::new(), true);
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ => {}
                }
                if !(word.is_empty() || c.is_alphanumeric() || c == '_') {
                    modules.push(std::mem::take(&mut word));
                    fresh = c == ',' && depth == 0;
                }
            }
            modules.extend((!word.is_empty()).then_some(word));
        } else {
            modules.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    modules
}

/// Source text without test modules: tests may meet other servers, as clients do.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests").map_or(text, |at| &text[..at])
}

#[test]
fn imports_go_down_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = allowed();
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&source).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_string_lossy();
        let module = module.trim_end_matches(".rs");
        let Some(may) = table.get(module) else {
            assert!(["lib", "main"].contains(&module), "{module} is not in the table of DESIGN §3");
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        for name in named(without_tests(&text)) {
            let known = table.contains_key(name.as_str());
            if known && name != module && !may.contains(&name.as_str()) {
                wrong.push(format!("{}: {module} may not import {name}", relative.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn groups_and_paths_are_seen() {
    let text = "use crate::{model::{ids, event}, runtime::pki};\nlet x = crate::config::load();\nmacro_crate::y";
    assert_eq!(named(text), ["model", "runtime", "config"]);
}
