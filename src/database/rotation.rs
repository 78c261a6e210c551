//! A new password for the user of a schema, while services are connected.

use super::{
    accounts::{Accounts, Credentials, SchemaSpec, new_password},
    provision,
    server::DatabaseError,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{path::PathBuf, sync::Arc};

/// Passwords that the server's starts and its rotation share.
pub(super) type SharedAccounts = Arc<Mutex<Accounts>>;

/// Rotates passwords of a running [`super::Database`].
#[derive(Clone)]
pub struct PasswordRotation {
    pub(super) accounts: SharedAccounts,
    pub(super) file: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) schemas: Vec<SchemaSpec>,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a password has not been rotated. The old one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// No schema has this name.
    #[error("the database has no schema {0}")]
    Unknown(String),
    /// Who connects with it could not be told.
    #[error("the new password could not be published: {0}")]
    Publish(String),
    /// The server or the file of passwords.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl PasswordRotation {
    /// Makes a password for the user of `schema`, hands it to `publish`, then to the server.
    ///
    /// Who connects knows it first and must go on with the old one until the server takes the new:
    /// the other way round everybody would be locked out until told. When the server does not take it,
    /// the old one is published again.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn rotate(
        &self,
        schema: &str,
        publish: impl Fn(Credentials) -> BoxFuture<'static, Result<(), String>>,
    ) -> Result<(), RotationError> {
        let spec = self.schemas.iter().find(|s| s.schema.eq_ignore_ascii_case(schema));
        let spec = spec.ok_or_else(|| RotationError::Unknown(schema.to_owned()))?;
        let accounts = self.accounts.lock().clone();
        let (old, new) = (accounts.password(&spec.user).to_owned(), new_password());
        publish(self.credentials(spec, &new)).await.map_err(RotationError::Publish)?;
        let options = provision::over_socket(&self.socket, &accounts);
        let altered = provision::alter_password(options, &spec.user, &new).await;
        if let Err(error) = altered {
            publish(self.credentials(spec, &old)).await.map_err(RotationError::Publish)?;
            return Err(error.into());
        }
        let mut accounts = self.accounts.lock();
        accounts.set(&spec.user, &new);
        Ok(accounts.store(&self.file)?)
    }

    fn credentials(&self, spec: &SchemaSpec, password: &str) -> Credentials {
        Credentials {
            host: self.host.clone(),
            port: self.port,
            user: spec.user.clone(),
            password: password.to_owned(),
            database: spec.schema.clone(),
        }
    }
}
