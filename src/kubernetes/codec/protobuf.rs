//! Protobuf bodies into values: one walker over the tags in the definitions, for every kind.

use super::CodecError;
use crate::schema::definition::{Definition, Field, Reference, Shape, TagTarget};
use crate::schema::{GroupVersion, GroupVersionKind, builtin};
use aksim_model::quantity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::encoding::{WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Every body starts with this.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages nest at most.
const MOST_LEVELS: usize = 100;

type Tags = BTreeMap<u32, TagTarget>;

/// Decodes `k8s\0` and a `runtime.Unknown` with an object of a built-in kind.
pub(super) fn object(body: &[u8]) -> Result<Value, CodecError> {
    object_below(body, 0)
}

fn object_below(body: &[u8], level: usize) -> Result<Value, CodecError> {
    let unknown = body.strip_prefix(MAGIC).ok_or_else(|| {
        malformed("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    })?;
    let (mut type_meta, mut raw, mut encoding) = (None, &[][..], &[][..]);
    for entry in Entries(unknown) {
        match entry? {
            (1, Wire::Bytes(bytes)) => type_meta = Some(bytes),
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(bytes)) => encoding = bytes,
            _ => {}
        }
    }
    if !encoding.is_empty() {
        return Err(malformed("unsupported content encoding in protobuf body"));
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for entry in Entries(type_meta.unwrap_or_default()) {
        match entry? {
            (1, Wire::Bytes(bytes)) => api_version = utf8(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = utf8(bytes)?,
            _ => {}
        }
    }
    let definition = definition(&GroupVersion::parse(&api_version).kind(&*kind))
        .ok_or_else(|| malformed(&format!("no kind {kind:?} is registered for version {api_version:?}")))?;
    let mut object = Map::new();
    message(definition.get(), &definition.get().tags, raw, &mut object, level + 1)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

fn definition(kind: &GroupVersionKind) -> Option<Reference> {
    builtin::of_kind(kind).filter(|found| found.get().tags.len() + found.get().fields.len() > 0)
}

/// Reads the fields of a message into `out`.
fn message(
    definition: &Definition,
    tags: &Tags,
    buffer: &[u8],
    out: &mut Map<String, Value>,
    level: usize,
) -> Result<(), CodecError> {
    if level > MOST_LEVELS {
        return Err(malformed("protobuf message nests too deep"));
    }
    for entry in Entries(buffer) {
        let (tag, wire) = entry?;
        match tags.get(&tag) {
            Some(TagTarget::Field(name)) => field(definition, name, wire, out, level)?,
            Some(TagTarget::Inline(inner)) => message(definition, inner, wire.bytes()?, out, level + 1)?,
            Some(TagTarget::Unsupported(type_)) => {
                return Err(malformed(&format!("{type_} cannot be read from protobuf; send JSON")));
            }
            // A field of a newer client, as protobuf means it.
            None => {}
        }
    }
    Ok(())
}

/// Puts one occurrence of a field into `out`.
fn field(
    definition: &Definition,
    name: &str,
    wire: Wire<'_>,
    out: &mut Map<String, Value>,
    level: usize,
) -> Result<(), CodecError> {
    let Some(field) = definition.fields.get(name) else { return Ok(()) };
    match &field.shape {
        Shape::List(element) => {
            let slot = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = slot {
                push(element, wire, list, level)?;
            }
        }
        Shape::Map(element) => {
            let (key, value) = map_entry(element, wire.bytes()?, level)?;
            let slot = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = slot {
                map.insert(key, value);
            }
        }
        _ => {
            let value = value(field, wire, level)?;
            // Go writes fields that are no pointers even when they are zero.
            let kept = field.pointer || definition.required.iter().any(|r| r == name) || !is_zero(&value);
            if kept && !value.is_null() {
                out.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// One item of a repeated field, or several packed numbers.
fn push(element: &Field, wire: Wire<'_>, list: &mut Vec<Value>, level: usize) -> Result<(), CodecError> {
    let packed = matches!(element.shape, Shape::Int32 | Shape::Int64 | Shape::Boolean);
    match wire {
        Wire::Bytes(mut bytes) if packed => {
            while !bytes.is_empty() {
                let number = decode_varint(&mut bytes).map_err(|e| malformed(&e.to_string()))?;
                list.push(value(element, Wire::Varint(number), level)?);
            }
        }
        wire => list.push(value(element, wire, level)?),
    }
    Ok(())
}

/// `map<string, T>` is a message of key and value.
fn map_entry(element: &Field, entry: &[u8], level: usize) -> Result<(String, Value), CodecError> {
    let (mut key, mut value_) = (String::new(), None);
    for part in Entries(entry) {
        match part? {
            (1, Wire::Bytes(bytes)) => key = utf8(bytes)?,
            (2, wire) => value_ = Some(value(element, wire, level + 1)?),
            _ => {}
        }
    }
    let empty = || value(element, Wire::Bytes(&[]), level + 1);
    Ok((key, value_.map_or_else(empty, Ok)?))
}

/// A value of a shape; `Null` when the message stands for absence (an empty time).
fn value(field: &Field, wire: Wire<'_>, level: usize) -> Result<Value, CodecError> {
    Ok(match &field.shape {
        Shape::String => utf8(wire.bytes()?)?.into(),
        Shape::Bytes => STANDARD.encode(wire.bytes()?).into(),
        Shape::Boolean => (wire.varint()? != 0).into(),
        // Varints hold the two's complement; 32 bits are sign-extended to 64.
        Shape::Int32 | Shape::Int64 => wire.varint()?.cast_signed().into(),
        Shape::Number => match wire {
            Wire::Fixed64(bits) => f64::from_bits(bits).into(),
            other => return Err(other.unexpected("double")),
        },
        Shape::Quantity => quantity_text(wire.bytes()?)?,
        Shape::IntOrString => int_or_string(wire.bytes()?)?,
        Shape::Time => time(wire.bytes()?, 0)?,
        Shape::MicroTime => time(wire.bytes()?, 6)?,
        Shape::Duration => duration(wire.bytes()?)?,
        Shape::Any => raw(wire.bytes()?, level)?,
        Shape::Object(reference) => {
            let (definition, mut object) = (reference.get(), Map::new());
            message(definition, &definition.tags, wire.bytes()?, &mut object, level + 1)?;
            Value::Object(object)
        }
        // A list as a map's value is a message with `items` (ExtraValue).
        Shape::List(element) => {
            let mut list = Vec::new();
            for item in Entries(wire.bytes()?) {
                if let (1, wire) = item? {
                    push(element, wire, &mut list, level + 1)?;
                }
            }
            Value::Array(list)
        }
        Shape::Map(_) => return Err(malformed("map of maps in protobuf")),
    })
}

/// `message Quantity { string string = 1 }`
fn quantity_text(message: &[u8]) -> Result<Value, CodecError> {
    for entry in Entries(message) {
        if let (1, Wire::Bytes(bytes)) = entry? {
            let text = utf8(bytes)?;
            return Ok(quantity::canonical(&text).unwrap_or(text).into());
        }
    }
    Ok("0".into())
}

/// `message IntOrString { int64 type = 1; int32 intVal = 2; string strVal = 3 }`
fn int_or_string(message: &[u8]) -> Result<Value, CodecError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for entry in Entries(message) {
        match entry? {
            (1, wire) => is_text = wire.varint()? == 1,
            (2, wire) => number = wire.varint()?.cast_signed(),
            (3, wire) => text = utf8(wire.bytes()?)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// `message Time { int64 seconds = 1; int32 nanos = 2 }`; empty means absent.
fn time(message: &[u8], digits: u8) -> Result<Value, CodecError> {
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for entry in Entries(message) {
        match entry? {
            (1, wire) => seconds = wire.varint()?.cast_signed(),
            (2, wire) => nanos = wire.varint()?.cast_signed(),
            _ => {}
        }
    }
    let nanos = if digits == 0 { 0 } else { i32::try_from(nanos).unwrap_or_default() };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|e| malformed(&e.to_string()))?;
    Ok(format!("{time:.*}", usize::from(digits)).into())
}

/// `message Duration { int64 duration = 1 }`, in nanoseconds.
fn duration(message: &[u8]) -> Result<Value, CodecError> {
    for entry in Entries(message) {
        if let (1, wire) = entry? {
            let nanos = wire.varint()?.cast_signed();
            return Ok(format!("{}s", seconds_text(nanos)).into());
        }
    }
    Ok("0s".into())
}

/// Nanoseconds as decimal seconds, which Go's `ParseDuration` reads with `s`.
fn seconds_text(nanos: i64) -> String {
    let text = format!("{}.{:09}", (nanos / 1_000_000_000).abs(), (nanos % 1_000_000_000).abs());
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if nanos < 0 { format!("-{text}") } else { text.to_owned() }
}

/// `RawExtension`, `JSON`, `FieldsV1`: JSON bytes in field 1, or a nested protobuf object.
fn raw(message: &[u8], level: usize) -> Result<Value, CodecError> {
    for entry in Entries(message) {
        if let (1, Wire::Bytes(bytes)) = entry? {
            return match bytes {
                [] => Ok(Value::Null),
                bytes if bytes.starts_with(MAGIC) => object_below(bytes, level + 1),
                bytes => serde_json::from_slice(bytes).map_err(|e| malformed(&e.to_string())),
            };
        }
    }
    Ok(Value::Null)
}

fn utf8(bytes: &[u8]) -> Result<String, CodecError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("protobuf string is not UTF-8"))
}

fn malformed(message: &str) -> CodecError {
    CodecError::Malformed(message.to_owned())
}

/// A field's value on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn varint(self) -> Result<u64, CodecError> {
        match self {
            Self::Varint(number) => Ok(number),
            other => Err(other.unexpected("varint")),
        }
    }
    fn bytes(self) -> Result<&'a [u8], CodecError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.unexpected("bytes")),
        }
    }
    fn unexpected(self, wanted: &str) -> CodecError {
        let got = match self {
            Self::Varint(_) => "varint",
            Self::Fixed64(_) => "fixed64",
            Self::Bytes(_) => "bytes",
        };
        malformed(&format!("protobuf: wrong wireType {got}, expected {wanted}"))
    }
}

/// The fields of a message, in order; ends after the first error.
struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    fn read(&mut self) -> Result<Option<(u32, Wire<'a>)>, prost::DecodeError> {
        let (tag, wire_type) = decode_key(&mut self.0)?;
        Ok(Some((
            tag,
            match wire_type {
                WireType::Varint => Wire::Varint(decode_varint(&mut self.0)?),
                WireType::LengthDelimited => {
                    let length = usize::try_from(decode_varint(&mut self.0)?).unwrap_or(usize::MAX);
                    match self.0.split_at_checked(length) {
                        Some((bytes, rest)) => {
                            self.0 = rest;
                            Wire::Bytes(bytes)
                        }
                        None => return Ok(None),
                    }
                }
                WireType::SixtyFourBit => match self.0.split_first_chunk() {
                    Some((bytes, rest)) => {
                        self.0 = rest;
                        Wire::Fixed64(u64::from_le_bytes(*bytes))
                    }
                    None => return Ok(None),
                },
                other => {
                    skip_field(other, tag, &mut self.0, prost::encoding::DecodeContext::default())?;
                    return if self.0.is_empty() { Ok(Some((0, Wire::Varint(0)))) } else { self.read() };
                }
            },
        )))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(u32, Wire<'a>), CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let error = match self.read() {
            Ok(Some(entry)) => return Some(Ok(entry)),
            Ok(None) => malformed("unexpected EOF in protobuf body"),
            Err(error) => malformed(&error.to_string()),
        };
        self.0 = &[];
        Some(Err(error))
    }
}

#[cfg(test)]
mod tests;
