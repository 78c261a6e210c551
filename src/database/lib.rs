//! Azure Database for MySQL flexible server over a real server of this machine.
//!
//! A private `mariadbd` or `mysqld` runs as a supervised child: a data folder of its own copied
//! from a warm template, TLS from the environment's CA under `NAME.mysql.database.azure.com`,
//! Azure's server parameters, a schema and a user per service. Services meet it over the MySQL
//! protocol alone.
//!
//! * **Who it runs as**: the user that runs aksim, root included. The data folder stays that
//!   user's, below a folder nobody else may enter, and no account has to exist or be switched to.
//! * **When aksim dies** (`kill -9`) the kernel tells the server to shut down
//!   (`PR_SET_PDEATHSIG`); should it still run at the next start, that start stops it first.
//! * **Durability**: the redo log is written at every commit and synced every second, so killing
//!   the server or aksim loses nothing acknowledged (the page cache stays); a power cut may lose
//!   the last second unless `sync_commits` is set.

mod accounts;
mod child;
mod engine;
mod provision;
mod rotation;
mod server;
mod settings;
mod template;

pub use accounts::{Credentials, SchemaSpec};
pub use engine::{Engine, EngineChoice, Flavor, StandIn};
pub use rotation::{PasswordRotation, RotationError};
pub use server::{Database, DatabaseConfig, DatabaseError};
pub use settings::Sku;
