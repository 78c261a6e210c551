//! Who may use the database: generated passwords that stay, in `accounts.json` (0600).

use super::server::DatabaseError;
use aksim_runtime::files::{PRIVATE, write_atomic};
use rand::distr::{Alphanumeric, SampleString};
use std::{collections::BTreeMap, fmt, path::Path};

/// Longest schema and user name that MySQL takes.
const LONGEST_NAME: usize = 32;
/// Length of generated passwords.
const PASSWORD_LENGTH: usize = 32;
/// The administrator of a server, as one is chosen when it is made at Azure.
pub(super) const ADMIN: &str = "aksimadmin";
/// Azure's own account, over the private socket only.
pub(super) const SUPERUSER: &str = "azure_superuser";
/// Names that no service may take.
const RESERVED: [&str; 9] =
    [ADMIN, SUPERUSER, "root", "mysql", "sys", "information_schema", "performance_schema", "mariadb.sys", "test"];

/// A schema with the user that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaSpec {
    /// Name of the schema.
    pub schema: String,
    /// Name of its user.
    pub user: String,
}

/// What a service connects with. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Azure name of the server.
    pub host: String,
    /// Port under that name.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password: letters and digits, so that it needs no escaping in a URL.
    pub password: String,
    /// Schema; empty for the administrator.
    pub database: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}@{}:{}/{})", self.user, self.host, self.port, self.database)
    }
}

/// Passwords by user.
#[derive(Clone, Default)]
pub(super) struct Accounts(BTreeMap<String, String>);

impl Accounts {
    /// Reads the passwords and makes those that are missing.
    pub(super) fn open(path: &Path, schemas: &[SchemaSpec]) -> Result<Self, DatabaseError> {
        let file = |source| DatabaseError::File { path: path.to_owned(), source };
        let mut accounts: BTreeMap<String, String> = match std::fs::read(path) {
            Ok(content) => serde_json::from_slice(&content).map_err(|error| file(error.into()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(file(error)),
        };
        let before = accounts.len();
        for user in [ADMIN, SUPERUSER].into_iter().chain(schemas.iter().map(|s| s.user.as_str())) {
            accounts.entry(user.to_owned()).or_insert_with(new_password);
        }
        if accounts.len() != before {
            Self(accounts.clone()).store(path)?;
        }
        // Passwords end up in statements: a file that was edited must not end one.
        match accounts.values().find(|p| p.is_empty() || !p.chars().all(|c| c.is_ascii_alphanumeric())) {
            Some(_) => Err(file(std::io::Error::other("a password has other characters than letters and digits"))),
            None => Ok(Self(accounts)),
        }
    }

    /// Writes the passwords down.
    pub(super) fn store(&self, path: &Path) -> Result<(), DatabaseError> {
        let file = |source| DatabaseError::File { path: path.to_owned(), source };
        let content = serde_json::to_vec_pretty(&self.0).map_err(|error| file(error.into()))?;
        write_atomic(path, &content, PRIVATE).map_err(file)
    }

    /// Takes another password for a user.
    pub(super) fn set(&mut self, user: &str, password: &str) {
        self.0.insert(user.to_owned(), password.to_owned());
    }

    /// The password of a user; empty for one that is not there.
    pub(super) fn password(&self, user: &str) -> &str {
        self.0.get(user).map(String::as_str).unwrap_or_default()
    }
}

/// A password: letters and digits, about 190 bits.
pub(super) fn new_password() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_LENGTH)
}

/// Checks names, so that they can stand in statements.
pub(super) fn check(schemas: &[SchemaSpec]) -> Result<(), DatabaseError> {
    for (index, spec) in schemas.iter().enumerate() {
        for name in [&spec.schema, &spec.user] {
            let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            if name.is_empty() || name.len() > LONGEST_NAME || !letters {
                return Err(DatabaseError::Name {
                    name: name.clone(),
                    why: "must be 1 to 32 letters, digits, hyphens and underscores",
                });
            }
            if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(DatabaseError::Name { name: name.clone(), why: "is reserved" });
            }
        }
        if schemas[..index].iter().any(|other| other.schema.eq_ignore_ascii_case(&spec.schema)) {
            return Err(DatabaseError::Name { name: spec.schema.clone(), why: "is there twice" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn spec(name: &str) -> SchemaSpec {
        SchemaSpec { schema: name.into(), user: name.into() }
    }

    #[test]
    fn passwords_stay_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.json");
        let first = Accounts::open(&path, &[spec("catalog")]).unwrap();
        let second = Accounts::open(&path, &[spec("catalog"), spec("orders")]).unwrap();
        assert_eq!(first.password("catalog"), second.password("catalog"));
        assert_eq!(second.password("orders").len(), PASSWORD_LENGTH);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn names_that_could_break_a_statement_are_refused() {
        for name in ["", "a`b", "a b", "x'; drop", "root", "MySQL", &"a".repeat(33)] {
            assert!(check(&[spec(name)]).is_err(), "{name}");
        }
        assert!(check(&[spec("orders_v1"), spec("catalog")]).is_ok());
        assert!(check(&[spec("orders"), spec("Orders")]).is_err());
    }
}
