//! Scenario files: what is wrong in them is said before anything runs.

use crate::support::{Project, text};

#[test]
fn bad_files_are_refused_with_places_and_suggestions() {
    let project = Project::new("name = \"it-scenario-files\"\n");
    project.write(
        "scenarios/broken.yaml",
        "title: Broken\ngoal: None\nsteps:\n- id: a\n  text: b\n  chekcs: []\n  action:\n  - lod: {name: x}\n\
         faults:\n  cut: {network-partition: {}}\n",
    );
    // Nothing runs, and nothing has to: the file is what is wrong.
    let output = project.run(&["scenario", "show", "broken"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [
        "chekcs",
        "did you mean `checks`?",
        "did you mean `load`?",
        "`network-partition` is not there yet",
        "broken.yaml:6",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    let unknown = project.run(&["scenario", "run", "self-heeling"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
    assert!(text(&unknown).contains("did you mean `self-healing`?"), "{}", text(&unknown));
    let listed = project.ok(&["scenario", "list", "-o", "name"]);
    for name in ["horizontal-scaling", "self-healing", "load-balancing", "secret-management", "rollouts-under-load"] {
        assert!(listed.lines().any(|l| l == name), "{name} is not in\n{listed}");
    }
}
