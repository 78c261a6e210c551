//! The `Accept` header: encoding and representation of the answer.

use super::{CodecError, MediaType};

/// The shape a client asks an answer to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Representation {
    /// The object or list itself.
    #[default]
    Object,
    /// `as=Table;v=VERSION;g=meta.k8s.io`
    Table {
        /// `v1` or `v1beta1`.
        version: String,
    },
    /// `as=PartialObjectMetadata` or `as=PartialObjectMetadataList`.
    PartialObjectMetadata {
        /// `v1` or `v1beta1`.
        version: String,
    },
    /// `as=APIGroupDiscoveryList;v=VERSION;g=apidiscovery.k8s.io`: for `/api` and `/apis`.
    Discovery {
        /// `v2` or `v2beta1`.
        version: String,
    },
}

/// What to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Encoding.
    pub media: MediaType,
    /// Shape.
    pub representation: Representation,
    /// Indented JSON.
    pub pretty: bool,
}

/// Picks the first acceptable entry of an `Accept` header; no header means JSON.
///
/// # Errors
/// [`CodecError::NotAcceptable`] when only encodings are accepted that are not served for output
/// (protobuf alone, CBOR).
pub fn negotiate(accept: Option<&str>) -> Result<Negotiated, CodecError> {
    let plain = |media| Negotiated { media, representation: Representation::Object, pretty: false };
    let Some(accept) = accept.filter(|a| !a.trim().is_empty()) else {
        return Ok(plain(MediaType::Json));
    };
    accept.split(',').find_map(entry).ok_or_else(|| CodecError::NotAcceptable(accept.to_owned()))
}

/// One entry of the header; `None` when it cannot be served.
fn entry(entry: &str) -> Option<Negotiated> {
    let mut parts = entry.split(';').map(str::trim);
    let media = match parts.next()? {
        "application/json" | "*/*" | "application/*" => MediaType::Json,
        "application/yaml" => MediaType::Yaml,
        _ => return None,
    };
    let (mut kind, mut version, mut group, mut pretty) = ("", "", "", false);
    for (key, value) in parts.filter_map(|p| p.split_once('=')) {
        match key {
            "as" => kind = value,
            "v" => version = value,
            "g" => group = value,
            "pretty" => pretty = value == "1" || value == "true",
            _ => {}
        }
    }
    let representation = match kind {
        "" => Representation::Object,
        "APIGroupDiscoveryList" if group == "apidiscovery.k8s.io" && matches!(version, "v2" | "v2beta1") => {
            Representation::Discovery { version: version.to_owned() }
        }
        _ if group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") => return None,
        "Table" => Representation::Table { version: version.to_owned() },
        "PartialObjectMetadata" | "PartialObjectMetadataList" => {
            Representation::PartialObjectMetadata { version: version.to_owned() }
        }
        _ => return None,
    };
    Some(Negotiated { media, representation, pretty })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_clients_headers() {
        let kubectl_get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(
            negotiate(Some(kubectl_get)).unwrap().representation,
            Representation::Table { version: "v1".into() }
        );
        let typed = negotiate(Some("application/vnd.kubernetes.protobuf,application/json")).unwrap();
        assert_eq!((typed.media, typed.representation), (MediaType::Json, Representation::Object));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert!(matches!(
            negotiate(Some(metadata)).unwrap().representation,
            Representation::PartialObjectMetadata { .. }
        ));
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(
            negotiate(Some(discovery)).unwrap().representation,
            Representation::Discovery { version: "v2".into() }
        );
        assert_eq!(negotiate(Some("application/yaml")).unwrap().media, MediaType::Yaml);
        assert_eq!(negotiate(None).unwrap().media, MediaType::Json);
        for refused in ["application/vnd.kubernetes.protobuf", "application/cbor", "text/html"] {
            assert!(matches!(negotiate(Some(refused)), Err(CodecError::NotAcceptable(_))), "{refused}");
        }
        assert!(negotiate(Some("application/vnd.kubernetes.protobuf, */*")).is_ok());
    }
}
