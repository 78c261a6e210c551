//! The database server of a project, a schema for each service that asks for one.

use crate::{SimulatorError, ground::Ground, part::Server};
use aksim_database::{Database, DatabaseConfig, EngineChoice, SchemaSpec};

/// Takes the server's listener; `None` for a project without a database.
///
/// # Errors
/// [`SimulatorError::Database`].
pub async fn bind(ground: &Ground) -> Result<Option<Database>, SimulatorError> {
    let Some(asked) = &ground.config.database else { return Ok(None) };
    let schemas = ground.config.services.iter().filter_map(|s| s.database.clone());
    let cache = ground.home.cache().join("database");
    let mut settings = DatabaseConfig::new(ground.home.component("database"), cache, ground.pki.clone(), &asked.name);
    settings.port = ground.port("database", asked.port);
    settings.engine = asked.binary.clone().map_or(EngineChoice::Auto, EngineChoice::Process);
    settings.schemas = schemas.map(|schema| SchemaSpec { user: schema.clone(), schema }).collect();
    Ok(Some(Database::bind(settings).await?))
}

/// The server as a part of the environment.
pub fn server(database: Database) -> Server<Database> {
    let (name, url) = (database.stands_in_for().to_string(), format!("mysql://{}", database.address()));
    Server::new(database, name, url)
}
