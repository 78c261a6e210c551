//! Flags of an instruction: `--name[=value]` before the arguments.

use super::go_duration;
use crate::dockerfile::{
    error::{DockerfileError, Source},
    instruction::RunMount,
    lines::LogicalLine,
    words::{Word, quoted},
};
use aksim_model::suggest::nearest;
use std::time::Duration;

/// The flags of one instruction, in order.
pub(super) struct Flags<'a> {
    source: &'a Source,
    line: &'a LogicalLine,
    given: Vec<(&'a str, Option<&'a str>, Word<'a>)>,
}

/// Keys of `--mount` by type; the type itself is always allowed.
const MOUNT_KEYS: &[(&str, &[&str])] = &[
    ("bind", &["from", "source", "src", "target", "dst", "destination", "rw", "readwrite", "ro", "readonly"]),
    (
        "cache",
        &[
            "id",
            "target",
            "dst",
            "destination",
            "ro",
            "readonly",
            "sharing",
            "mode",
            "uid",
            "gid",
            "from",
            "source",
            "src",
        ],
    ),
    ("tmpfs", &["target", "dst", "destination", "size"]),
    ("secret", &["id", "target", "dst", "destination", "env", "required", "mode", "uid", "gid"]),
];

impl<'a> Flags<'a> {
    /// Reads the flags that follow the instruction's name; they, and where the arguments begin.
    pub(super) fn read(
        source: &'a Source,
        line: &'a LogicalLine,
        begin: usize,
        instruction: &str,
        known: &[&str],
    ) -> Result<(Self, usize), DockerfileError> {
        let text = line.text.as_str();
        let skip_blanks = |at: usize| at + (text[at..].len() - text[at..].trim_start().len());
        let mut flags = Self { source, line, given: Vec::new() };
        let mut at = skip_blanks(begin);
        // Instructions without flags take an argument that looks like one as it is.
        while !known.is_empty() && text[at..].starts_with("--") {
            let length = text[at..].find(char::is_whitespace).unwrap_or(text.len() - at);
            let word = Word { begin: at, text: &text[at..at + length] };
            at = skip_blanks(at + length);
            if word.text == "--" {
                break;
            }
            let body = &word.text[2..];
            let (name, value) = body.split_once('=').map_or((body, None), |(n, v)| (n, Some(v)));
            if !known.contains(&name) {
                let hint = match nearest(name, known.iter().copied()) {
                    Some(close) => format!("did you mean --{close}?"),
                    None => format!("{instruction} takes --{}", known.join(", --")),
                };
                let span = line.span(word.begin, word.end());
                return Err(source.error(span, format!("unknown flag for {instruction}: --{name}"), Some(hint)));
            }
            flags.given.push((name, value, word));
        }
        Ok((flags, at))
    }

    fn error(&self, word: &Word, message: impl Into<String>, hint: Option<String>) -> DockerfileError {
        self.source.error(self.line.span(word.begin, word.end()), message, hint)
    }

    fn last(&self, name: &str) -> Option<&(&'a str, Option<&'a str>, Word<'a>)> {
        self.given.iter().rev().find(|(n, _, _)| *n == name)
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, DockerfileError> {
        let values = self.given.iter().filter(|(n, _, _)| *n == name);
        values
            .map(|(name, value, word)| match value {
                Some(value) if !value.is_empty() => Ok((*value).to_owned()),
                _ => Err(self.error(word, format!("--{name} needs a value"), Some(format!("--{name}=VALUE")))),
            })
            .collect()
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, DockerfileError> {
        Ok(self.texts(name)?.pop())
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, DockerfileError> {
        let Some((_, value, word)) = self.last(name) else { return Ok(None) };
        match *value {
            None | Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(self.error(word, format!("--{name} is true or false, not {other:?}"), None)),
        }
    }

    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, DockerfileError> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        match (go_duration(&value), self.last(name)) {
            (Some(duration), _) => Ok(Some(duration)),
            (None, Some((_, _, word))) => Err(self.error(
                word,
                format!("{value:?} is not a duration"),
                Some("for example 30s or 1m30s".to_owned()),
            )),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, DockerfileError> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        match (value.parse(), self.last(name)) {
            (Ok(number), _) => Ok(Some(number)),
            (Err(_), Some((_, _, word))) => Err(self.error(word, format!("{value:?} is not a number"), None)),
            (Err(_), None) => Ok(None),
        }
    }

    /// The `--mount`s of a RUN.
    pub(super) fn mounts(&self) -> Result<Vec<RunMount>, DockerfileError> {
        let mounts = self.given.iter().filter(|(n, _, _)| *n == "mount");
        mounts.map(|(_, value, word)| self.mount(value.unwrap_or_default(), word)).collect()
    }

    fn mount(&self, value: &str, word: &Word) -> Result<RunMount, DockerfileError> {
        let mut fields: Vec<(String, Option<String>)> = Vec::new();
        for part in value.split(',').filter(|p| !p.is_empty()) {
            // Values may be quoted, as in a CSV line.
            let part = quoted(part, 0, '\\').first().map_or(part, |w| w.text).trim_matches('"');
            let (key, value) =
                part.split_once('=').map_or((part, None), |(k, v)| (k, Some(v.trim_matches('"').to_owned())));
            fields.push((key.to_ascii_lowercase(), value));
        }
        let get = |names: &[&str]| {
            fields.iter().rev().find(|(k, _)| names.contains(&k.as_str())).map(|(_, v)| v.clone().unwrap_or_default())
        };
        let is = |names: &[&str]| get(names).is_some_and(|v| v.is_empty() || v == "true" || v == "1");
        let kind = get(&["type"]).unwrap_or_else(|| "bind".to_owned());
        let Some((_, known)) = MOUNT_KEYS.iter().find(|(k, _)| *k == kind) else {
            let hint = Some("bind, cache, tmpfs or secret; ssh is not supported".to_owned());
            return Err(self.error(word, format!("unsupported mount type {kind:?}"), hint));
        };
        if let Some((key, _)) = fields.iter().find(|(k, _)| k != "type" && !known.contains(&k.as_str())) {
            let hint = nearest(key, known.iter().copied()).map(|c| format!("did you mean {c}?"));
            return Err(self.error(word, format!("unknown key {key:?} of a {kind} mount"), hint));
        }
        let target = get(&["target", "dst", "destination"]);
        let needed = || {
            let hint = Some(format!("--mount=type={kind},target=/PATH"));
            target.clone().ok_or_else(|| self.error(word, format!("the {kind} mount has no target"), hint))
        };
        Ok(match kind.as_str() {
            "bind" => RunMount::Bind {
                from: get(&["from"]),
                source: get(&["source", "src"]).unwrap_or_else(|| "/".to_owned()),
                target: needed()?,
                writable: is(&["rw", "readwrite"]),
            },
            "cache" => {
                if get(&["from"]).is_some() {
                    return Err(self.error(
                        word,
                        "a cache mount that begins with files of a stage is not supported",
                        None,
                    ));
                }
                let target = needed()?;
                let id = get(&["id"]).unwrap_or_else(|| target.clone());
                RunMount::Cache { id, target, readonly: is(&["ro", "readonly"]) }
            }
            "tmpfs" => {
                let size = get(&["size"]).map(|s| s.parse::<u64>());
                let size = size.transpose().map_err(|_| self.error(word, "size is not a number of bytes", None))?;
                RunMount::Tmpfs { target: needed()?, size }
            }
            _ => {
                let base = target.as_deref().and_then(|t| t.rsplit('/').next()).map(str::to_owned);
                let Some(id) = get(&["id"]).or(base) else {
                    return Err(self.error(
                        word,
                        "the secret mount has no id",
                        Some("--mount=type=secret,id=NAME".to_owned()),
                    ));
                };
                RunMount::Secret { id, target, env: get(&["env"]), required: is(&["required"]) }
            }
        })
    }
}
