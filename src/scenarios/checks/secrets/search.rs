//! Which values are secret, and looking for them in bytes.

use crate::ScenarioError;
use aho_corasick::AhoCorasick;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt, api::ListParams};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// Keys of Secrets whose values are secret; the others are names and addresses.
const SECRET_KEYS: [&str; 6] = ["password", "secret", "token", "key", "credential", "connectionstring"];
/// Shorter values would be found anywhere.
const SHORTEST: usize = 8;

/// Secret values by a name for people: `namespace/secret.key`.
///
/// # Errors
/// What the API server said.
pub async fn values(client: &Client) -> Result<BTreeMap<String, String>, ScenarioError> {
    let secrets: Api<Secret> = Api::all(client.clone());
    let all = secrets.list(&ListParams::default()).await.map_err(ScenarioError::cluster("secrets"))?;
    let mut values = BTreeMap::new();
    for secret in all {
        let name = format!("{}/{}", secret.namespace().unwrap_or_default(), secret.name_any());
        for (key, value) in secret.data.iter().flatten() {
            let lower = key.to_ascii_lowercase().replace(['-', '_'], "");
            let secret_key = SECRET_KEYS.iter().any(|k| lower.contains(k));
            if let Ok(text) = std::str::from_utf8(&value.0)
                && secret_key
                && text.len() >= SHORTEST
            {
                values.insert(text.to_owned(), format!("{name}.{key}"));
            }
        }
    }
    Ok(values)
}

/// What is looked for: each value as it is and as base64.
#[derive(Clone)]
pub struct Needles {
    automaton: AhoCorasick,
    names: Vec<String>,
}

impl Needles {
    /// From values with their names.
    ///
    /// # Errors
    /// When there is nothing to look for, as a search for nothing proves nothing.
    pub fn new(values: &BTreeMap<String, String>) -> Result<Self, ScenarioError> {
        if values.is_empty() {
            return Err(ScenarioError::Missing("there is no secret value to look for".into()));
        }
        let forms = values.iter().flat_map(|(value, name)| {
            [(value.clone(), name.clone()), (STANDARD.encode(value), format!("{name} (base64)"))]
        });
        let (patterns, names): (Vec<String>, Vec<String>) = forms.unzip();
        let automaton = AhoCorasick::new(&patterns).map_err(|e| ScenarioError::Missing(e.to_string()))?;
        Ok(Self { automaton, names })
    }

    /// How many values.
    pub fn count(&self) -> usize {
        self.names.len() / 2
    }

    /// Names of what is in a stream, and how many bytes it had.
    ///
    /// # Errors
    /// Any error of reading.
    pub fn find(&self, stream: impl Read) -> io::Result<(Vec<String>, u64)> {
        let mut counted = Counted { stream, bytes: 0 };
        let mut found = Vec::new();
        for hit in self.automaton.stream_find_iter(&mut counted) {
            let name = &self.names[hit?.pattern().as_usize()];
            if !found.contains(name) {
                found.push(name.clone());
            }
        }
        Ok((found, counted.bytes))
    }
}

struct Counted<R> {
    stream: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, so that no value is in one piece.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            (buffer[0], self.0) = (*first, rest);
            Ok(1)
        }
    }

    #[test]
    fn values_are_found_across_pieces_and_in_base64() {
        let values = BTreeMap::from([("hunter2hunter2".to_owned(), "default/db.password".to_owned())]);
        let needles = Needles::new(&values).unwrap();
        let (found, bytes) = needles.find(Drops(b"password=hunter2hunter2\n")).unwrap();
        assert_eq!((found, bytes), (vec!["default/db.password".to_owned()], 24));
        let encoded = STANDARD.encode("hunter2hunter2");
        let (found, _) = needles.find(Drops(encoded.as_bytes())).unwrap();
        assert_eq!(found, ["default/db.password (base64)"]);
        assert!(needles.find(Drops(b"hunter2 hunter2")).unwrap().0.is_empty());
        assert!(Needles::new(&BTreeMap::new()).is_err());
    }
}
