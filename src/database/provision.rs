//! What a server holds before any service connects: accounts, schemas, grants. Every statement
//! can be repeated.

use super::{
    accounts::{ADMIN, Accounts, SUPERUSER, SchemaSpec},
    engine::Flavor,
    server::DatabaseError,
};
use mysql_async::{Conn, OptsBuilder, SslOpts, prelude::Queryable};
use std::{net::SocketAddr, path::Path};

/// Privileges of a flexible server's administrator: everything but what reaches out of the
/// database (FILE, SHUTDOWN, SUPER).
const ADMIN_PRIVILEGES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, \
     ALTER, SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, \
     CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER";

/// Statements the server runs at every start before it accepts connections (`--init-file`): the
/// superuser over the socket, and no way in for `root`.
pub(super) fn init_file(accounts: &Accounts) -> String {
    let password = accounts.password(SUPERUSER);
    [
        format!("CREATE USER IF NOT EXISTS '{SUPERUSER}'@'localhost' IDENTIFIED BY '{password}'"),
        format!("ALTER USER '{SUPERUSER}'@'localhost' IDENTIFIED BY '{password}'"),
        format!("GRANT ALL PRIVILEGES ON *.* TO '{SUPERUSER}'@'localhost' WITH GRANT OPTION"),
        "DROP USER IF EXISTS 'root'@'localhost'".to_owned(),
    ]
    .map(|statement| statement + ";\n")
    .concat()
}

/// Options for the superuser over the private socket.
pub(super) fn over_socket(socket: &Path, accounts: &Accounts) -> OptsBuilder {
    OptsBuilder::default()
        .socket(Some(socket.to_string_lossy()))
        .user(Some(SUPERUSER))
        .pass(Some(accounts.password(SUPERUSER)))
}

/// Options for the administrator over TCP and TLS, verified as a service would.
pub(super) fn over_tls(address: SocketAddr, host: &str, ca: &Path, accounts: &Accounts) -> OptsBuilder {
    let tls = SslOpts::default()
        .with_root_certs(vec![ca.to_owned().into()])
        .with_disable_built_in_roots(true)
        .with_danger_tls_hostname_override(Some(host.to_owned()));
    OptsBuilder::default()
        .ip_or_hostname(address.ip().to_string())
        .tcp_port(address.port())
        .prefer_socket(false)
        .user(Some(ADMIN))
        .pass(Some(accounts.password(ADMIN)))
        .ssl_opts(tls)
}

/// Makes the administrator, and a schema with its user for each of `schemas`.
pub(super) async fn provision(
    options: OptsBuilder,
    flavor: Flavor,
    accounts: &Accounts,
    schemas: &[SchemaSpec],
) -> Result<(), DatabaseError> {
    let mut connection = Conn::new(options).await?;
    let mut statements = account(ADMIN, accounts.password(ADMIN));
    statements.push(format!("GRANT {ADMIN_PRIVILEGES} ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION"));
    for spec in schemas {
        statements.push(format!("CREATE DATABASE IF NOT EXISTS `{}`", spec.schema));
        statements.extend(account(&spec.user, accounts.password(&spec.user)));
        // In a grant the name is a pattern: `_` would match any letter.
        let pattern = spec.schema.replace('_', "\\_");
        statements.push(format!("GRANT ALL PRIVILEGES ON `{pattern}`.* TO '{}'@'%'", spec.user));
    }
    for statement in statements {
        connection.query_drop(statement).await?;
    }
    tracing::debug!(?flavor, schemas = schemas.len(), "provisioned");
    connection.disconnect().await?;
    Ok(())
}

/// Gives a user another password; connections under way stay.
pub(super) async fn alter_password(options: OptsBuilder, user: &str, password: &str) -> Result<(), DatabaseError> {
    let mut connection = Conn::new(options).await?;
    connection.query_drop(format!("ALTER USER '{user}'@'%' IDENTIFIED BY '{password}' REQUIRE SSL")).await?;
    Ok(connection.disconnect().await?)
}

/// An account that any address may use, over TLS alone.
fn account(user: &str, password: &str) -> Vec<String> {
    vec![
        format!("CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{password}' REQUIRE SSL"),
        format!("ALTER USER '{user}'@'%' IDENTIFIED BY '{password}' REQUIRE SSL"),
    ]
}
