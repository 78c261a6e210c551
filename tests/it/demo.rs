//! The demonstration as a test: the whole shop, all eight rows, and two saves. The four properties
//! have a test of their own, see `scenarios`.

use crate::support::{Project, text};

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
