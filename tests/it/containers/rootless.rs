//! The same containers without root: every test of this folder again, as an ordinary user.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

/// `nobody`, who has no subordinate ids.
const USER: u32 = 65534;

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn everything_works_for_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        // Already an ordinary user: the other tests are this test.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (tests, program, temporary) =
        (folder.path().join("it"), folder.path().join("aksim"), folder.path().join("tmp"));
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    copy(&std::env::current_exe().unwrap(), &tests);
    copy(Path::new(env!("CARGO_BIN_EXE_aksim")), &program);
    std::fs::create_dir(&temporary).unwrap();
    chown(&temporary, Some(USER), Some(USER)).unwrap();
    let output = Command::new("setpriv")
        .args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"])
        .arg(&tests)
        .args(["containers::", "--skip", "containers::rootless"])
        .current_dir(&temporary)
        .env("TMPDIR", &temporary)
        .env("HOME", &temporary)
        .env("AKSIM_TEST_PROGRAM", &program)
        .output()
        .expect("hint: setpriv comes with util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("containers::basics::runs_logs_executes_and_ends ... ok"), "{text}");
}
