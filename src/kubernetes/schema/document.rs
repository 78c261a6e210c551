//! Documents made from a [`Schema`] once and kept as bytes: discovery and OpenAPI.

use super::registry::Schema;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// A document ready to send.
#[derive(Clone, Debug)]
pub struct Document {
    /// The body.
    pub bytes: Bytes,
    /// Name of the content for `ETag` and `?hash=`: hexadecimal, upper case.
    pub hash: String,
}

impl Document {
    /// Hashes a body.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { hash: hash(&bytes), bytes: bytes.into() }
    }
}

/// Name of a content: SHA-256 in upper-case hexadecimal.
pub(super) fn hash(content: &[u8]) -> String {
    hex::encode_upper(Sha256::digest(content))
}

/// Documents made so far, by name.
#[derive(Debug, Default)]
pub(super) struct Documents(Mutex<HashMap<String, Arc<Document>>>);

impl Schema {
    /// The document of this name, made by `make` at its first use.
    pub(super) fn document(&self, name: &str, make: impl FnOnce() -> Vec<u8>) -> Arc<Document> {
        if let Some(document) = self.documents.0.lock().get(name) {
            return document.clone();
        }
        // Made outside the lock: two requests may both make it, and one is kept.
        let document = Arc::new(Document::new(make()));
        self.documents.0.lock().entry(name.to_owned()).or_insert(document).clone()
    }

    /// As [`Self::document`], of a value.
    pub(super) fn json_document(&self, name: &str, make: impl FnOnce() -> Value) -> Arc<Document> {
        self.document(name, || make().to_string().into_bytes())
    }
}
