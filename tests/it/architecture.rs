//! The four properties of the reference architecture, as scenarios: each passes on the sample shop, and
//! fails once the property is broken.
//!
//! It is the longest of the tests and spends most of it waiting. libtest begins tests in the order of their names:
//! this one goes on beside all others.

use crate::support::{Project, client, text};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

const PROGRAMS: [&str; 4] = ["catalog", "orders", "web", "admin"];

#[test]
fn the_four_properties_hold_and_fail_when_they_are_broken() {
    let shop = shop();
    shop.up();
    passes(&shop, &["load-balancing"]);
    passes(&shop, &["secret-management"]);
    passes(&shop, &["rollouts-under-load", "--set", "rollouts=2"]);
    passes(&shop, &["horizontal-scaling"]);
    passes(&shop, &["self-healing"]);
    one_pod_selected(&shop);
    secret_in_a_log(&shop);
    no_autoscaler(&shop);
    one_replica(&shop);
}

/// A Service that selects one pod alone does not spread.
fn one_pod_selected(shop: &Project) {
    let pods = kubectl(shop, &["get", "pods", "-l", "app.kubernetes.io/name=catalog", "-o", "name"]);
    let pod = pods.lines().next().expect("catalog has pods").to_owned();
    kubectl(shop, &["label", &pod, "chosen=yes"]);
    let select = |value: &str| {
        let patch = format!("{{\"spec\":{{\"selector\":{{\"chosen\":{value}}}}}}}");
        kubectl(shop, &["patch", "service/catalog", "--type=merge", "-p", &patch]);
    };
    select("\"yes\"");
    fails(shop, &["load-balancing", "--set", "requests=50"], "spread", "off the even share");
    select("null");
}

/// A password that a program writes into its log, as part of a request's path, is found there.
fn secret_in_a_log(shop: &Project) {
    let encoded = kubectl(shop, &["get", "secret/orders-database", "-o", "jsonpath={.data.password}"]);
    let password = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
    let world: Value = serde_json::from_str(&shop.ok(&["status", "-o", "json"])).unwrap();
    let ingress = world["components"]["ingress"]["endpoints"][0]["url"].as_str().expect("ingress has an address");
    let port = url::Url::parse(ingress).unwrap().port_or_known_default().unwrap();
    let curl = Command::new(client("curl"))
        .args(["-sk", "--noproxy", "*", "--resolve", &format!("shop.localhost:{port}:127.0.0.1")])
        .arg(format!("https://shop.localhost:{port}/{password}"))
        .output()
        .unwrap();
    assert!(curl.status.success(), "{}", text(&curl));
    fails(shop, &["secret-management"], "search", "default/orders-database.password is in the log of default/web-");
}

/// Without an autoscaler nothing scales.
fn no_autoscaler(shop: &Project) {
    // One that may not do anything is as good as none, but for its object.
    kubectl(shop, &["patch", "hpa/catalog", "--type=merge", "-p", r#"{"spec":{"maxReplicas":2}}"#]);
    fails(shop, &["horizontal-scaling", "--set", "out=35s"], "scale-out", "desiredReplicas");
    kubectl(shop, &["delete", "hpa/catalog"]);
    fails(shop, &["horizontal-scaling"], "prepare", "horizontalpodautoscaler/catalog");
}

/// One replica that is killed is missed.
fn one_replica(shop: &Project) {
    // The autoscaler, which keeps two, is gone by now.
    kubectl(shop, &["scale", "deployment/catalog", "--replicas=1"]);
    kubectl(shop, &["rollout", "status", "deployment/catalog", "--timeout=60s"]);
    fails(shop, &["self-healing"], "kill-container", "first: HTTP 50");
}

fn kubectl(shop: &Project, arguments: &[&str]) -> String {
    let output = shop.kubectl(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn scenario(shop: &Project, arguments: &[&str]) -> (Output, Value) {
    let all: Vec<&str> =
        ["scenario", "run"].into_iter().chain(arguments.iter().copied()).chain(["-o", "json"]).collect();
    let output = shop.run(&all);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report)
}

fn passes(shop: &Project, arguments: &[&str]) {
    let (output, report) = scenario(shop, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
    assert_eq!(report["outcome"], "passed");
    let checks: usize = report["steps"].as_array().unwrap().iter().map(|s| s["checks"].as_array().unwrap().len()).sum();
    assert!(checks > 2, "{report}");
}

/// Exit code 5, at this step, with this found.
fn fails(shop: &Project, arguments: &[&str], step: &str, found: &str) {
    let (output, report) = scenario(shop, arguments);
    assert_eq!(output.status.code(), Some(5), "{arguments:?}: {}", text(&output));
    let failed: Vec<&Value> = report["steps"].as_array().unwrap().iter().filter(|s| s["outcome"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["id"], step, "{report}");
    assert!(failed[0].to_string().contains(found), "no {found:?} in {}", failed[0]);
}

/// The sample shop, with programs that cargo has built in its own folder, where they stay.
fn shop() -> Project {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/shop");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked"]).current_dir(&source);
    for program in PROGRAMS {
        cargo.args(["-p", program]);
    }
    // What cargo tells the tests' own build is not meant for the shop's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_") && name != "CARGO_HOME" {
            cargo.env_remove(name);
        }
    }
    cargo.env_remove("RUSTC_BOOTSTRAP");
    let built = cargo.output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    let config = std::fs::read_to_string(source.join("aksim.toml")).unwrap();
    let config: String = config.lines().filter(|l| !l.starts_with("build = ")).map(|l| format!("{l}\n")).collect();
    let project = Project::new(&config);
    for entry in walkdir::WalkDir::new(&source).into_iter().filter_entry(|e| e.file_name() != "target") {
        let entry = entry.unwrap();
        let relative = entry.path().strip_prefix(&source).unwrap();
        if entry.file_type().is_file() && relative != Path::new("aksim.toml") {
            copy(entry.path(), project.path(relative.to_str().unwrap()));
        }
    }
    for program in PROGRAMS {
        let relative = format!("target/x86_64-unknown-linux-gnu/release/{program}");
        copy(&source.join(&relative), project.path(&relative));
    }
    project
}

fn copy(from: &Path, to: PathBuf) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}
