//! The built-in definitions, decompressed once from the blobs `generate.rs` made.

use super::definition::{Definition, Reference};
use super::name::GroupVersionKind;
use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

/// Types, without descriptions: read at start.
const TYPES: &[u8] = include_bytes!("v1.36.types.json.zst");
/// Descriptions for OpenAPI: read when a client first asks.
const DESCRIPTIONS: &[u8] = include_bytes!("v1.36.descriptions.json.zst");

/// Description of a definition (under `""`) and of its fields.
pub type Descriptions = HashMap<String, HashMap<String, String>>;

struct Builtin {
    definitions: Vec<Definition>,
    by_kind: HashMap<GroupVersionKind, u32>,
    by_name: HashMap<String, u32>,
}

static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| {
    let definitions: Vec<Definition> = decompress(TYPES);
    let (mut by_kind, mut by_name) = (HashMap::new(), HashMap::new());
    for (number, definition) in (0u32..).zip(&definitions) {
        by_name.insert(definition.name.clone(), number);
        by_kind.extend(definition.kinds.iter().map(|kind| (kind.clone(), number)));
    }
    Builtin { definitions, by_kind, by_name }
});

static DESCRIPTION: LazyLock<Descriptions> = LazyLock::new(|| decompress(DESCRIPTIONS));

/// Reads a blob compiled into this binary.
fn decompress<T: serde::de::DeserializeOwned>(blob: &[u8]) -> T {
    let mut json = Vec::new();
    // Invariant: the blob is part of the binary, and a test reads both.
    zstd::Decoder::new(blob).and_then(|mut d| d.read_to_end(&mut json)).expect("blob is zstd");
    serde_json::from_slice(&json).expect("blob is JSON of its type")
}

/// The definition of this number.
///
/// # Panics
/// For a number not from [`of_kind`], [`named`] or a definition of the arena.
pub fn definition(number: u32) -> &'static Definition {
    &BUILTIN.definitions[number as usize]
}

/// All built-in definitions, sorted by name.
pub fn definitions() -> &'static [Definition] {
    &BUILTIN.definitions
}

/// Definition of a kind, list kinds and option kinds included.
pub fn of_kind(kind: &GroupVersionKind) -> Option<Reference> {
    BUILTIN.by_kind.get(kind).copied().map(Reference)
}

/// Definition by name, such as `io.k8s.api.core.v1.PodSpec`.
pub fn named(name: &str) -> Option<Reference> {
    BUILTIN.by_name.get(name).copied().map(Reference)
}

/// Descriptions, as kubectl explain shows them.
pub fn descriptions() -> &'static Descriptions {
    &DESCRIPTION
}
