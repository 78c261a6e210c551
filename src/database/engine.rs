//! Finding the server program, and what it stands in for.

use super::server::DatabaseError;
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a server program may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);
/// Oldest MariaDB with `require_secure_transport`.
const OLDEST_MARIADB: (u32, u32) = (10, 5);
/// Oldest MySQL that Azure still offers.
const OLDEST_MYSQL: (u32, u32) = (8, 0);
/// Where servers lie that are not in `PATH`.
const SERVER_FOLDERS: [&str; 5] =
    ["/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/opt/mysql/bin"];

/// Which server to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// MySQL if installed, else MariaDB.
    #[default]
    Auto,
    /// This program.
    Process(PathBuf),
}

/// Family of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Oracle's server, as Azure runs it.
    MySql,
    /// The compatible server that Linux distributions carry.
    MariaDb,
}

impl Flavor {
    /// Lower case, for folder names.
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }
}

/// A server program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// The program.
    pub path: PathBuf,
    /// Family.
    pub flavor: Flavor,
    /// `10.11.19`.
    pub version: String,
}

/// Which engine stands in for which of Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// `MariaDB 10.11.19`.
    pub engine: String,
    /// The Azure service and version.
    pub azure: &'static str,
    /// What an application may notice.
    pub differences: &'static [&'static str],
}

impl fmt::Display for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stands in for {}", self.engine, self.azure)
    }
}

const MARIADB_DIFFERENCES: &[&str] = &[
    "the default collation is utf8mb4_unicode_520_ci; utf8mb4_0900_ai_ci does not exist",
    "JSON is text with a check, without MySQL's binary format, -> and ->> operators, multi-valued indexes",
    "accounts use mysql_native_password, not caching_sha2_password",
    "no LATERAL derived tables; optimizer hints are comments",
    "no binary log, no read replicas, no zone-redundant standby",
];
const MYSQL_DIFFERENCES: &[&str] = &["no binary log, no read replicas, no zone-redundant standby"];

impl Engine {
    /// Finds the server.
    ///
    /// # Errors
    /// [`DatabaseError::NoEngine`] when there is none, [`DatabaseError::Engine`] when it cannot be used.
    pub async fn find(choice: &EngineChoice) -> Result<Self, DatabaseError> {
        match choice {
            EngineChoice::Process(path) => Self::probe(path).await,
            EngineChoice::Auto => {
                let mut refused = None;
                let mut found: Option<Self> = None;
                for path in candidates() {
                    match Self::probe(&path).await {
                        Ok(engine) if engine.flavor == Flavor::MySql => return Ok(engine),
                        Ok(engine) => drop(found.get_or_insert(engine)),
                        Err(error) => drop(refused.get_or_insert(error)),
                    }
                }
                found.ok_or_else(|| refused.unwrap_or(DatabaseError::NoEngine))
            }
        }
    }

    async fn probe(path: &Path) -> Result<Self, DatabaseError> {
        let unusable = |message: String| DatabaseError::Engine { path: path.to_owned(), message };
        let mut command = tokio::process::Command::new(path);
        let command = command.args(["--no-defaults", "--version"]).env("LC_ALL", "C").kill_on_drop(true);
        let output = tokio::time::timeout(VERSION_DEADLINE, command.output())
            .await
            .map_err(|_| unusable(format!("did not tell its version within {} s", VERSION_DEADLINE.as_secs())))?
            .map_err(|error| unusable(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (flavor, version) =
            parse_version(&text).ok_or_else(|| unusable(format!("is not a MySQL server: {}", text.trim())))?;
        let (oldest, name) = match flavor {
            Flavor::MySql => (OLDEST_MYSQL, "MySQL"),
            Flavor::MariaDb => (OLDEST_MARIADB, "MariaDB"),
        };
        if major_minor(&version) < oldest {
            return Err(unusable(format!("is {name} {version}, older than {}.{}", oldest.0, oldest.1)));
        }
        Ok(Self { path: path.to_owned(), flavor, version })
    }

    /// What it stands in for, and what an application may notice.
    pub fn stands_in_for(&self) -> StandIn {
        let azure = match self.flavor {
            Flavor::MySql if major_minor(&self.version) >= (8, 1) => {
                "Azure Database for MySQL flexible server, version 8.4"
            }
            _ => "Azure Database for MySQL flexible server, version 8.0",
        };
        let (name, differences) = match self.flavor {
            Flavor::MySql => ("MySQL", MYSQL_DIFFERENCES),
            Flavor::MariaDb => ("MariaDB", MARIADB_DIFFERENCES),
        };
        StandIn { engine: format!("{name} {}", self.version), azure, differences }
    }
}

/// Every server program, once: several names may lead to the same.
fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(SERVER_FOLDERS.iter().map(PathBuf::from)).collect();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_absolute()) {
        for name in ["mysqld", "mariadbd"] {
            if let Ok(program) = folder.join(name).canonicalize()
                && program.is_file()
                && !found.contains(&program)
            {
                found.push(program);
            }
        }
    }
    found
}

fn parse_version(text: &str) -> Option<(Flavor, String)> {
    let (_, after) = text.split_once("Ver ")?;
    let digits = after.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(after.len());
    let version = after[..digits].trim_end_matches('.').to_owned();
    let flavor = if text.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql };
    version.starts_with(|c: char| c.is_ascii_digit()).then_some((flavor, version))
}

fn major_minor(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aksim_model::advice::Advice;

    #[test]
    fn versions_are_read() {
        let debian = "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)";
        assert_eq!(parse_version(debian), Some((Flavor::MariaDb, "10.11.19".into())));
        let oracle = "/usr/sbin/mysqld  Ver 8.0.39 for Linux on x86_64 (MySQL Community Server - GPL)";
        assert_eq!(parse_version(oracle), Some((Flavor::MySql, "8.0.39".into())));
        assert_eq!(parse_version("bash, version 5"), None);
    }

    #[tokio::test]
    async fn a_program_that_is_no_server_is_refused() {
        for path in ["/bin/true", "/nonexistent/mysqld"] {
            let error = Engine::find(&EngineChoice::Process(path.into())).await.unwrap_err();
            assert!(error.to_string().contains(path) && error.hint().is_some(), "{error}");
        }
    }
}
