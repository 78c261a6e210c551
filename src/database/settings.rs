//! Azure's server parameters, as data, with memory settings for one developer's machine.

use super::engine::{Engine, Flavor};

/// Size of the server: decides `max_connections` as at Azure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sku {
    /// Burstable, 1 vCore, 1 GiB.
    B1s,
    /// Burstable, 1 vCore, 2 GiB; Azure's smallest usual choice.
    #[default]
    B1ms,
    /// Burstable, 2 vCores, 4 GiB.
    B2s,
    /// General purpose, 2 vCores, 8 GiB.
    D2dsV4,
    /// General purpose, 4 vCores, 16 GiB.
    D4dsV4,
}

impl Sku {
    /// Azure's default of `max_connections`.
    pub fn max_connections(self) -> u32 {
        match self {
            Self::B1s => 85,
            Self::B1ms => 171,
            Self::B2s => 341,
            Self::D2dsV4 => 683,
            Self::D4dsV4 => 1365,
        }
    }
}

/// Azure's values, where they differ from the server's own.
const AZURE: &[(&str, &str)] = &[
    ("character-set-server", "utf8mb4"),
    ("default-storage-engine", "InnoDB"),
    (
        "sql-mode",
        "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE,ONLY_FULL_GROUP_BY,\
         STRICT_TRANS_TABLES",
    ),
    ("require-secure-transport", "ON"),
    ("tls-version", "TLSv1.2,TLSv1.3"),
    ("explicit-defaults-for-timestamp", "ON"),
    ("transaction-isolation", "REPEATABLE-READ"),
    ("max-allowed-packet", "16777216"),
    ("wait-timeout", "28800"),
];

/// Small, quick to start, harmless to share a laptop with.
const FRUGAL: &[(&str, &str)] = &[
    ("innodb-buffer-pool-size", "33554432"),
    ("innodb-log-buffer-size", "2097152"),
    ("innodb-buffer-pool-dump-at-shutdown", "OFF"),
    ("innodb-buffer-pool-load-at-startup", "OFF"),
    // Asynchronous I/O contexts are few in containers and bring nothing at this size.
    ("innodb-use-native-aio", "OFF"),
    ("innodb-read-io-threads", "1"),
    ("innodb-write-io-threads", "1"),
    ("performance-schema", "OFF"),
    ("key-buffer-size", "1048576"),
    ("table-open-cache", "400"),
    ("open-files-limit", "4096"),
];

/// Parameters that a data folder is made with and must keep.
pub(super) fn creation_options(engine: &Engine) -> Vec<String> {
    let mut options = vec!["--lower-case-table-names=1".to_owned()];
    options.push(match engine.flavor {
        Flavor::MariaDb => "--innodb-log-file-size=16777216".to_owned(),
        Flavor::MySql => "--innodb-redo-log-capacity=33554432".to_owned(),
    });
    options
}

/// All parameters that follow from engine and size.
pub(super) fn options(engine: &Engine, sku: Sku, sync_commits: bool) -> Vec<String> {
    let mut options = creation_options(engine);
    options.extend(AZURE.iter().chain(FRUGAL).map(|(name, value)| format!("--{name}={value}")));
    options.push(format!("--max-connections={}", sku.max_connections()));
    options.push(format!("--innodb-flush-log-at-trx-commit={}", if sync_commits { 1 } else { 2 }));
    options.extend(
        match engine.flavor {
            Flavor::MariaDb => ["--collation-server=utf8mb4_unicode_520_ci", "--aria-pagecache-buffer-size=8388608"],
            Flavor::MySql => ["--collation-server=utf8mb4_0900_ai_ci", "--mysqlx=OFF"],
        }
        .map(str::to_owned),
    );
    options.push("--skip-log-bin".to_owned());
    options
}
