//! Bodies in and out: which encoding, and objects to and from bytes.

pub mod accept;
mod protobuf;
mod text;

pub use accept::{Negotiated, Representation};

use serde_json::Value;

/// An encoding of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl MediaType {
    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
    /// From a content type, parameters ignored. An absent one is JSON, as in kube-apiserver.
    ///
    /// # Errors
    /// [`CodecError::UnsupportedMediaType`], CBOR included.
    pub fn from_content_type(content_type: Option<&str>) -> Result<Self, CodecError> {
        let name = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match name {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            other => Err(CodecError::UnsupportedMediaType(other.to_owned())),
        }
    }
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with kube's JSON names; `apiVersion` and `kind` set when the body had them.
    pub value: Value,
    /// Keys given twice (`metadata.name`), for `fieldValidation`; the last one won.
    pub duplicates: Vec<String>,
}

/// Why a body could not be decoded, or no answer made that the client accepts.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// 415 `UnsupportedMediaType`.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: \
         application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )]
    UnsupportedMediaType(String),
    /// 406 `NotAcceptable`.
    #[error("only the following media types are accepted: application/json, application/yaml")]
    NotAcceptable(String),
    /// 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
}

/// Decodes a body of any accepted encoding. An empty body is `Value::Null`.
///
/// # Errors
/// [`CodecError::UnsupportedMediaType`], [`CodecError::Malformed`].
pub fn decode(content_type: Option<&str>, body: &[u8]) -> Result<Decoded, CodecError> {
    let plain = |value| Decoded { value, duplicates: Vec::new() };
    match MediaType::from_content_type(content_type)? {
        _ if body.is_empty() => Ok(plain(Value::Null)),
        MediaType::Json => text::json(body),
        MediaType::Yaml => text::yaml(body),
        MediaType::Protobuf => protobuf::object(body).map(plain),
    }
}

/// Encodes an answer.
///
/// # Errors
/// [`CodecError::NotAcceptable`] for protobuf.
pub fn encode(media: MediaType, value: &Value, pretty: bool) -> Result<Vec<u8>, CodecError> {
    let encoded = match media {
        MediaType::Json if pretty => serde_json::to_vec_pretty(value),
        MediaType::Json => serde_json::to_vec(value),
        MediaType::Yaml => {
            let text = serde_saphyr::to_string(value).map_err(|error| CodecError::Malformed(error.to_string()))?;
            return Ok(text.into_bytes());
        }
        MediaType::Protobuf => return Err(CodecError::NotAcceptable(media.as_str().to_owned())),
    };
    encoded.map_err(|error| CodecError::Malformed(error.to_string()))
}
