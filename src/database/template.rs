//! The warm template: a data folder initialised once per engine version in the cache, which
//! every new environment copies.

use super::{
    engine::{Engine, Flavor},
    server::DatabaseError,
    settings,
};
use aksim_runtime::files::create_private_dir;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// How long the initialisation of a data folder may take.
const INITIALISATION_DEADLINE: Duration = Duration::from_secs(120);
/// Changes when templates are made differently.
const LAYOUT: u32 = 1;

/// Puts a fresh data folder at `data`, unless there is one.
pub(super) async fn provide(engine: &Engine, cache: &Path, data: &Path) -> Result<(), DatabaseError> {
    if data.exists() {
        return Ok(());
    }
    let template = template(engine, cache).await?;
    let data = data.to_owned();
    blocking(move || {
        let partial = data.with_extension("partial");
        remove(&partial)?;
        copy(&template, &partial)?;
        std::fs::rename(&partial, &data).map_err(|source| DatabaseError::File { path: data, source })
    })
    .await
}

/// The template of an engine, made if it is not there.
async fn template(engine: &Engine, cache: &Path) -> Result<PathBuf, DatabaseError> {
    let folder = cache.join("database");
    let path = folder.join(format!("{}-{}-{LAYOUT}", engine.flavor.name(), engine.version));
    if path.exists() {
        return Ok(path);
    }
    create_private_dir(&folder).map_err(|source| DatabaseError::File { path: folder.clone(), source })?;
    // Others that want the same wait, and find it made. The lock ends with the file.
    let lock = folder.join("lock");
    let _held = blocking(move || {
        let file = |source| DatabaseError::File { path: lock.clone(), source };
        let held = File::create(&lock).map_err(file)?;
        held.lock().map_err(file)?;
        Ok(held)
    })
    .await?;
    if path.exists() {
        return Ok(path);
    }
    let partial = folder.join(format!("partial-{:08x}", rand::random::<u32>()));
    let made = initialise(engine, &partial).await;
    let result = match made {
        Ok(()) => std::fs::rename(&partial, &path).map_err(|source| DatabaseError::File { path: path.clone(), source }),
        Err(error) => Err(error),
    };
    if result.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = remove(&partial);
    }
    result.map(|()| path)
}

async fn initialise(engine: &Engine, data: &Path) -> Result<(), DatabaseError> {
    let failed = |message: String| DatabaseError::Initialise { engine: engine.stands_in_for().engine, message };
    let program = match engine.flavor {
        Flavor::MySql => engine.path.clone(),
        Flavor::MariaDb => install_program(engine)
            .ok_or_else(|| failed("mariadb-install-db, which comes with the server, is not installed".to_owned()))?,
    };
    let mut command = tokio::process::Command::new(program);
    command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
    if nix::unistd::geteuid().is_root() {
        command.arg("--user=root");
    }
    match engine.flavor {
        Flavor::MySql => command.arg("--initialize-insecure"),
        Flavor::MariaDb => command.args([
            "--skip-name-resolve",
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
            "--auth-root-socket-user=root",
        ]),
    };
    command.args(settings::creation_options(engine)).env("TZ", "UTC").env("LC_ALL", "C");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(INITIALISATION_DEADLINE, command.output())
        .await
        .map_err(|_| failed(format!("not done within {} s", INITIALISATION_DEADLINE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(failed(lines[lines.len().saturating_sub(10)..].join("\n")))
}

/// `mariadb-install-db` beside or near the server, else in `PATH`.
fn install_program(engine: &Engine) -> Option<PathBuf> {
    let server = engine.path.parent()?;
    let base = server.parent().unwrap_or(server);
    let near = [server.to_owned(), base.join("bin"), base.join("scripts")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = near.into_iter().chain(std::env::split_paths(&path));
    folders
        .flat_map(|folder| ["mariadb-install-db", "mysql_install_db"].map(|name| folder.join(name)))
        .find(|program| program.is_file())
}

/// Copies a folder of files and folders. `std::fs::copy` shares blocks where the file system can.
fn copy(from: &Path, to: &Path) -> Result<(), DatabaseError> {
    let file = |path: &Path, source| DatabaseError::File { path: path.to_owned(), source };
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.map_err(|error| file(from, error.into()))?;
        let Ok(relative) = entry.path().strip_prefix(from) else { continue };
        let target = to.join(relative);
        if entry.file_type().is_dir() {
            create_private_dir(&target).map_err(|source| file(&target, source))?;
        } else if entry.file_type().is_file() {
            std::fs::copy(entry.path(), &target).map_err(|source| file(&target, source))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), DatabaseError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DatabaseError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, DatabaseError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(DatabaseError::File { path: PathBuf::new(), source: std::io::Error::other(error) }))
}
