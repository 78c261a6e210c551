//! The demonstration as a test: the whole shop, all eight rows, and two saves. The four properties
//! have a test of their own, see `scenarios`.

use crate::{
    environment::traces,
    support::{Project, text},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
};

#[test]
fn the_demo_walks_its_rows() {
    let project = Project::new("name = \"unused\"\n");
    let folder = project.path("shop");
    let output = project.run(&["demo", "--without-properties", "--dir", folder.to_str().unwrap()]);
    let said = text(&output);
    assert!(output.status.success(), "{}\n{said}", output.status);
    for row in [
        "environment up",
        "row in MySQL",
        "403",
        "catalog serves demo-",
        "a change is committed and pushed",
        "after committed, delivered, queued",
        "catalog serves commit-",
    ] {
        assert!(said.contains(row), "no {row:?} in\n{said}");
    }
    assert!(!project.home().join("shop-demo").exists(), "the demo left its state behind");
}

#[test]
fn an_interrupted_demo_ends_what_it_started() {
    let project = Project::new("name = \"unused\"\n");
    let folder = project.path("shop");
    for (at, signal) in [("Compiling", Signal::SIGINT), ("ok: environment up", Signal::SIGTERM)] {
        let mut command = project.command(&["demo", "--without-properties", "--dir", folder.to_str().unwrap()]);
        let demo = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (code, said) = interrupted(demo, at, signal);
        assert_eq!(code, Some(130), "{said}");
        assert!(said.contains("interrupted: ending what was started"), "{said}");
        assert!(said.contains("error: the demo was interrupted"), "{said}");
        assert!(!project.home().join("shop-demo").exists(), "at {at:?} the demo left its state behind");
        assert_eq!(traces(project.home()), Vec::<String>::new(), "at {at:?}");
        assert_eq!(working_in(&folder), Vec::<String>::new(), "at {at:?}");
    }
}

/// Sends a signal to the demonstration once it says `at`; its exit code and what it said until it ended.
fn interrupted(mut demo: Child, at: &str, signal: Signal) -> (Option<i32>, String) {
    let mut said = String::new();
    let mut sent = false;
    for line in BufReader::new(demo.stderr.take().unwrap()).lines() {
        said += &(line.unwrap() + "\n");
        if !sent && said.contains(at) {
            kill(Pid::from_raw(i32::try_from(demo.id()).unwrap()), signal).unwrap();
            sent = true;
        }
    }
    let status = demo.wait().unwrap();
    assert!(sent, "the demo never said {at:?}:\n{said}");
    (status.code(), said)
}

/// Processes that work in a folder: compilers and what they start.
fn working_in(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let there =
        processes.filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)));
    there
        .map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " "))
        .collect()
}
