//! Machines that lack something: one clear screen, exit code 3, no process left.

use crate::{
    environment::traces,
    support::{AKSIM, Project, text},
};
use std::{io::Write, path::Path, process::Command};

/// A small file system over a folder; unmounted with it.
struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    fn over(folder: &'p Path, size: &str) -> Self {
        let options = Some(format!("size={size}"));
        let mounted =
            nix::mount::mount(Some("tmpfs"), folder, Some("tmpfs"), nix::mount::MsFlags::empty(), options.as_deref());
        mounted.expect("a small disk can be mounted by root");
        Self(folder)
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let unmounted = nix::mount::umount(self.0);
        if !std::thread::panicking() {
            unmounted.expect("nobody uses the small disk any more");
        }
    }
}

#[test]
fn a_full_disk_is_said_at_the_start() {
    let project = Project::new("name = \"disk-full\"\n");
    let disk = SmallDisk::over(project.home(), "2m");
    disk.fill();
    let output = project.run(&["up", "--detach"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("No space left on device") && said.contains("hint: free some space"), "{said}");
    assert!(said.lines().count() < 10, "more than a screen:\n{said}");
    assert_eq!(processes(project.home()), Vec::<String>::new());
    // Cleaning up needs no space.
    assert!(!project.environment_home().exists());
    project.ok(&["down", "--purge"]);
    assert!(!project.environment_home().exists());
}

#[test]
fn a_disk_that_fills_up_during_a_build_is_said_and_cleaned_up() {
    let project = Project::busybox("disk-fills");
    let _disk = SmallDisk::over(project.home(), "1m");
    let output = project.run(&["up", "--detach"]);
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    project.ok(&["down", "--purge"]);
    assert!(!project.environment_home().exists());
    assert_eq!(processes(project.home()), Vec::<String>::new());
}

#[test]
fn forbidden_user_namespaces_are_said_with_the_way_to_allow_them() {
    let project = Project::new("name = \"no-namespaces\"\n");
    // A user namespace of our own, whose limit is ours to set; then an ordinary user in it.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --ambient-caps=-all --inh-caps=-all \"$0\" \"$@\"";
    let template = project.command(&["up", "--detach"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "sh", "-c", script, AKSIM]);
    command.args(template.get_args()).current_dir(template.get_current_dir().unwrap());
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("could not make a user namespace"), "{said}");
    assert!(said.contains("hint: allow user namespaces (sysctl user.max_user_namespaces"), "{said}");
    assert!(!said.contains("No space left"), "a limit is not a disk: {said}");
    assert!(said.lines().count() < 10, "more than a screen:\n{said}");
    assert_eq!(traces(project.home()), Vec::<String>::new());
    assert!(!project.environment_home().exists());
}

/// Processes that name a folder; the small disk itself is a mount.
fn processes(home: &Path) -> Vec<String> {
    traces(home).into_iter().filter(|trace| trace.starts_with("process")).collect()
}
