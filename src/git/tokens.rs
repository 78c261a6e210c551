//! Personal access tokens: shown once, kept as hashes.

use super::{GitError, access::Access, records};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// How every token begins, so that people and scanners know one.
pub(super) const PREFIX: &str = "akp_";

/// What is kept of a token; the token itself is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Id, to revoke it by.
    pub id: u64,
    /// What it is for.
    pub note: String,
    /// Whose it is.
    pub user: String,
    /// Most that it allows; its user's own access limits it further.
    pub access: Access,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// SHA-256 of the token, hexadecimal. Tokens are random and long: no salt is needed.
    #[serde(rename = "hash")]
    pub(super) hash: String,
}

impl TokenRecord {
    fn expired(&self) -> bool {
        self.expires_at.is_some_and(|end| end <= Timestamp::now())
    }
}

/// All tokens of the host.
pub(super) struct Tokens {
    path: PathBuf,
    ids: records::Ids,
    records: parking_lot::Mutex<Vec<TokenRecord>>,
}

impl Tokens {
    /// Those of a file.
    pub(super) fn open(path: &Path) -> Result<Self, GitError> {
        let records = records::read(path)?.unwrap_or_default();
        let records = parking_lot::Mutex::new(records);
        Ok(Self { path: path.to_owned(), ids: records::Ids::default(), records })
    }

    /// Makes a token and returns it with its record.
    pub(super) fn issue(
        &self,
        user: &str,
        note: &str,
        access: Access,
        expires_at: Option<Timestamp>,
    ) -> Result<(String, TokenRecord), GitError> {
        let token = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; 20]>()));
        let record = TokenRecord {
            id: self.ids.next(),
            note: note.to_owned(),
            user: user.to_owned(),
            access,
            created_at: Timestamp::now(),
            expires_at,
            hash: hash(&token),
        };
        self.replace(|records| {
            records.retain(|r| !r.expired());
            records.push(record.clone());
        })?;
        Ok((token, record))
    }

    /// Revokes a token; `false` when there is none of this id.
    pub(super) fn revoke(&self, id: u64) -> Result<bool, GitError> {
        let known = self.list().iter().any(|r| r.id == id);
        self.replace(|records| records.retain(|r| r.id != id))?;
        Ok(known)
    }

    /// Records of all tokens that have not ended.
    pub(super) fn list(&self) -> Vec<TokenRecord> {
        self.records.lock().iter().filter(|r| !r.expired()).cloned().collect()
    }

    /// The record of a token.
    pub(super) fn verify(&self, token: &str) -> Option<TokenRecord> {
        // Comparing hashes: how far two of them agree tells nothing about the token.
        let hash = hash(token);
        self.records.lock().iter().find(|r| r.hash == hash && !r.expired()).cloned()
    }

    fn replace(&self, change: impl FnOnce(&mut Vec<TokenRecord>)) -> Result<(), GitError> {
        let mut records = self.records.lock();
        let mut changed = records.clone();
        change(&mut changed);
        records::write(&self.path, &changed)?;
        *records = changed;
        Ok(())
    }
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_are_kept_as_hashes_and_can_be_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let tokens = Tokens::open(&path).unwrap();
        let (token, record) = tokens.issue("ada", "laptop", Access::Write, None).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&token));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Tokens::open(&path).unwrap();
        assert_eq!(again.verify(&token), Some(record.clone()));
        assert!(again.verify("akp_other").is_none());
        assert!(again.revoke(record.id).unwrap() && !again.revoke(record.id).unwrap());
        assert!(again.verify(&token).is_none());
        let (old, _) = again.issue("ada", "old", Access::Read, Some(Timestamp::UNIX_EPOCH)).unwrap();
        assert!(again.verify(&old).is_none());
    }
}
