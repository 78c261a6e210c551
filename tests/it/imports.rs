//! Holds what cargo cannot say of the map in `src/lib.rs`: a crate depends on crates of lower floors alone, so that the
//! servers never know each other and meet over their protocols, as they do in Azure. Inside a large crate its
//! modules have floors too, so that none of them is in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
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

/// The floors of the modules inside a crate that is large, lowest first: a module may import modules of lower
/// floors, and none of its own. What a crate's `lib.rs` hands out is for other crates; inside, a path names the module.
const MODULE_FLOORS: &[(&str, &[&[&str]])] = &[
    (
        "kubernetes",
        &[&["schema", "store"], &["codec", "patch", "request"], &["auth", "stream"], &["admission"], &["server"]],
    ),
    (
        "pipelines",
        &[
            &["connections", "error", "expression", "logging"],
            &["store", "yaml"],
            &["artifacts", "environments", "template"],
            &["plan"],
            &["agent"],
            &["engine"],
            &["context"],
            &["steps"],
            &["run"],
            &["service"],
        ],
    ),
];

fn source() -> PathBuf {
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

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => rust_files(&path, files),
            false => files.extend(Some(path).filter(|path| path.extension().is_some_and(|e| e == "rs"))),
        }
    }
}

/// The module that a file of a crate is, as its path; empty for `lib.rs`.
fn module(relative: &Path) -> Vec<String> {
    let path = relative.with_extension("");
    let mut names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| *last == "mod" || *last == "lib");
    names
}

/// Whether a file is a test: those may use whatever they need.
fn is_test(module: &[String]) -> bool {
    module.iter().any(|name| name == "tests" || name.ends_with("_tests"))
}

/// A source text without comments, and without the test module at its end.
fn code(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    lines[..end].iter().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The entries of a group that begins after its brace, nested groups whole, and what follows the group.
fn entries(group: &str) -> (Vec<&str>, &str) {
    let (mut entries, mut depth, mut start) = (Vec::new(), 0u32, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                entries.extend(Some(group[start..at].trim()).filter(|entry| !entry.is_empty()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    (entries, &group[start..])
}

/// What a path names first, and from where: `None` for the crate, else how many modules up.
fn heads(path: &str, from: Option<usize>, found: &mut Vec<(Option<usize>, String)>) {
    if let Some(rest) = path.strip_prefix("super::") {
        heads(rest, Some(from.unwrap_or(0) + 1), found);
    } else if let Some(group) = path.strip_prefix('{') {
        entries(group).0.into_iter().for_each(|entry| heads(entry, from, found));
    } else {
        found.push((from, word(path)));
    }
}

/// All names that follow `crate::` or `super::` in a source text, groups included.
fn named(text: &str) -> Vec<(Option<usize>, String)> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = ["crate::", "super::"].into_iter().filter_map(|head| rest.find(head)).min() {
        let before = rest[..at].chars().next_back();
        let path = rest[at..].trim_start_matches("crate::");
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            heads(path, None, &mut found);
        }
        let after = path.trim_start_matches("super::");
        // A group's entries have been read.
        rest = after.strip_prefix('{').map_or(after, |group| entries(group).1);
    }
    found
}

/// What is wrong with the imports of a file, by the floors of its crate.
fn wrong_imports(floors: &[&[&str]], module: &[String], text: &str) -> Vec<String> {
    let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
    let Some(own) = module.first() else { return Vec::new() };
    let mut wrong = Vec::new();
    for (from, name) in named(&code(text)) {
        // From the root, `super` as often as the module is deep; less often it stays in the module.
        let at_root = from.is_none_or(|up| up >= module.len());
        if !at_root || name == *own {
            continue;
        }
        match floor(&name) {
            None => wrong.push(format!("{} names {name} by the root; name its module", module.join("::"))),
            Some(other) if Some(other) >= floor(own) => {
                wrong.push(format!("{} may not import {name}", module.join("::")));
            }
            Some(_) => {}
        }
    }
    wrong
}

#[test]
fn imports_inside_a_crate_go_down_only() {
    let mut wrong = Vec::new();
    for (name, floors) in MODULE_FLOORS {
        let root = source().join(name);
        let mut files = Vec::new();
        rust_files(&root, &mut files);
        let mut modules = BTreeSet::new();
        for file in files {
            let module = module(file.strip_prefix(&root).unwrap());
            if !is_test(&module) {
                modules.extend(module.first().cloned());
                let text = std::fs::read_to_string(&file).unwrap();
                wrong.extend(wrong_imports(floors, &module, &text).into_iter().map(|what| format!("{name}: {what}")));
            }
        }
        let known: BTreeSet<String> = floors.iter().flat_map(|floor| *floor).map(|name| (*name).to_owned()).collect();
        assert_eq!(modules, known, "MODULE_FLOORS and the modules of {name} differ");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read() {
    let text = "use crate::{a::{b, c}, d};\nuse super::{super::e, f};\nfn g() { crate::h::i(super::super::j::k()) }\n\
        // crate::comment\nmacro_crate::l!();\n#[cfg(test)]\nmod tests {\n    use crate::m;\n}";
    let mut found = named(&code(text));
    found.sort();
    let found: Vec<_> = found.iter().map(|(from, name)| (*from, name.as_str())).collect();
    let expected = [(None, "a"), (None, "d"), (None, "h"), (Some(1), "f"), (Some(2), "e"), (Some(2), "j")];
    assert_eq!(found, expected);
    let floors: &[&[&str]] = &[&["low"], &["middle", "beside"], &["high"]];
    let deep = ["middle".to_owned(), "part".to_owned()];
    let wrong = |text: &str| wrong_imports(floors, &deep, text);
    assert!(wrong("use crate::{low::x, middle::y};\nuse super::{super::low::z, sibling::w};").is_empty());
    assert_eq!(wrong("use crate::high::x;"), ["middle::part may not import high"]);
    assert_eq!(wrong("use super::super::beside::x;"), ["middle::part may not import beside"]);
    assert_eq!(wrong("use crate::Type;"), ["middle::part names Type by the root; name its module"]);
}
