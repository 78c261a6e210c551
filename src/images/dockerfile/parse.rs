//! From logical lines to stages of instructions.

use super::{
    error::{DockerfileError, Source, Span},
    instruction::{CommandLine, Dockerfile, Healthcheck, Instruction, Kind, Run, Stage, Transfer},
    lines::{self, LogicalLine},
    words::{Word, blank_separated, quoted},
};
use aksim_model::suggest::nearest;
use std::time::Duration;

mod flags;
use flags::Flags;

/// Instructions and the flags each of them takes.
const INSTRUCTIONS: &[(&str, &[&str])] = &[
    ("ADD", &["chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"]),
    ("ARG", &[]),
    ("CMD", &[]),
    ("COPY", &["from", "chown", "chmod", "link", "parents", "exclude"]),
    ("ENTRYPOINT", &[]),
    ("ENV", &[]),
    ("EXPOSE", &[]),
    ("FROM", &["platform"]),
    ("HEALTHCHECK", &["interval", "timeout", "start-period", "start-interval", "retries"]),
    ("LABEL", &[]),
    ("MAINTAINER", &[]),
    ("ONBUILD", &[]),
    ("RUN", &["mount", "network", "security"]),
    ("SHELL", &[]),
    ("STOPSIGNAL", &[]),
    ("USER", &[]),
    ("VOLUME", &[]),
    ("WORKDIR", &[]),
];

/// Reads a Dockerfile.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(source: &Source) -> Result<Dockerfile, DockerfileError> {
    let lines = lines::split(source)?;
    let mut file =
        Dockerfile { escape: lines.escape, syntax: lines.syntax, global_args: Vec::new(), stages: Vec::new() };
    for line in &lines.lines {
        let reader = Reader::new(source, line, lines.escape)?;
        if reader.name == "FROM" {
            let stage = reader.from()?;
            if let Some(name) = &stage.name
                && file.stages.iter().any(|s| s.name.as_ref() == Some(name))
            {
                return Err(source.error(stage.span, format!("stage name {name:?} is used twice"), None));
            }
            file.stages.push(stage);
            continue;
        }
        let instruction = reader.instruction()?;
        match (file.stages.last_mut(), &instruction.kind) {
            (Some(stage), _) => stage.instructions.push(instruction),
            (None, Kind::Arg(_)) => file.global_args.push(instruction),
            (None, _) => {
                let hint = Some("begin with FROM, for example `FROM scratch`".to_owned());
                return Err(source.error(instruction.span, "only ARG may stand before the first FROM", hint));
            }
        }
    }
    if file.stages.is_empty() {
        let hint = Some("begin with FROM, for example `FROM scratch`".to_owned());
        return Err(source.error(Span::default(), "the file has no FROM", hint));
    }
    Ok(file)
}

/// Reads an ONBUILD trigger of a base image.
///
/// # Errors
/// What is wrong with it.
pub fn parse_onbuild(trigger: &str) -> Result<Instruction, DockerfileError> {
    let source = Source { name: "ONBUILD of the base image".to_owned(), text: trigger.to_owned().into() };
    let lines = lines::split(&source)?;
    match lines.lines.first() {
        Some(line) => Reader::new(&source, line, lines.escape)?.instruction(),
        None => Err(source.error(Span::default(), "the trigger is empty", None)),
    }
}

/// Reads one instruction.
struct Reader<'a> {
    source: &'a Source,
    line: &'a LogicalLine,
    escape: char,
    name: String,
    flags: Flags<'a>,
    /// Arguments after the flags.
    rest: &'a str,
    /// Where they begin in the line.
    offset: usize,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source, line: &'a LogicalLine, escape: char) -> Result<Self, DockerfileError> {
        let length = line.text.find(char::is_whitespace).unwrap_or(line.text.len());
        let name = line.text[..length].to_ascii_uppercase();
        let Some((_, known)) = INSTRUCTIONS.iter().find(|(n, _)| *n == name) else {
            let close = nearest(&name, INSTRUCTIONS.iter().map(|(n, _)| *n));
            let hint = close.map(|c| format!("did you mean {c}?"));
            let message = format!("unknown instruction: {}", &line.text[..length]);
            return Err(source.error(line.span(0, length), message, hint));
        };
        let (flags, offset) = Flags::read(source, line, length, &name, known)?;
        Ok(Self { source, line, escape, name, flags, rest: &line.text[offset..], offset })
    }

    fn error(&self, begin: usize, end: usize, message: impl Into<String>, hint: Option<&str>) -> DockerfileError {
        self.source.error(self.line.span(begin, end), message, hint.map(str::to_owned))
    }

    /// An error about all the arguments.
    fn wrong(&self, message: impl Into<String>, hint: &str) -> DockerfileError {
        self.error(self.offset, self.line.text.len().max(self.offset), message, Some(hint))
    }

    fn words(&self) -> Vec<Word<'a>> {
        blank_separated(self.rest, self.offset)
    }

    fn whole(&self) -> Result<String, DockerfileError> {
        match self.rest.is_empty() {
            true => Err(self.wrong(format!("{} needs an argument", self.name), "see the Dockerfile reference")),
            false => Ok(self.rest.to_owned()),
        }
    }

    fn from(self) -> Result<Stage, DockerfileError> {
        let words = self.words();
        let usage = "FROM [--platform=PLATFORM] IMAGE [AS NAME]";
        let (base, name) = match words.as_slice() {
            [base] => (base, None),
            [base, r#as, name] if r#as.text.eq_ignore_ascii_case("as") => (base, Some(name)),
            _ => return Err(self.wrong("FROM takes an image and perhaps AS and a name", usage)),
        };
        let name = match name {
            Some(word) => {
                let lower = word.text.to_lowercase();
                let good = lower.starts_with(|c: char| c.is_ascii_lowercase())
                    && lower.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
                if !good || lower == "scratch" {
                    let message = format!("invalid stage name {:?}", word.text);
                    let hint = Some("a letter, then letters, digits, '-', '_' and '.'; not scratch");
                    return Err(self.error(word.begin, word.end(), message, hint));
                }
                Some(lower)
            }
            None => None,
        };
        Ok(Stage {
            platform: self.flags.text("platform")?,
            base: base.text.to_owned(),
            name,
            span: self.line.span(0, self.line.text.len()),
            base_span: self.line.span(base.begin, base.end()),
            instructions: Vec::new(),
        })
    }

    fn instruction(self) -> Result<Instruction, DockerfileError> {
        let span = self.line.span(0, self.line.text.len());
        let text = self.line.text.clone();
        let kind = match self.name.as_str() {
            "ARG" => Kind::Arg(self.arg()?),
            "ENV" => Kind::Env(self.pairs()?),
            "LABEL" => Kind::Label(self.pairs()?),
            "RUN" => Kind::Run(self.run()?),
            "COPY" => Kind::Copy(self.transfer()?),
            "ADD" => Kind::Add(self.transfer()?),
            "WORKDIR" => Kind::Workdir(self.whole()?),
            "USER" => Kind::User(self.whole()?),
            "EXPOSE" => Kind::Expose(self.list()?),
            "VOLUME" => Kind::Volume(self.list()?),
            "SHELL" => match self.json() {
                Some(words) if !words.is_empty() => Kind::Shell(words),
                _ => return Err(self.wrong("SHELL takes a JSON list", r#"SHELL ["/bin/bash", "-c"]"#)),
            },
            "STOPSIGNAL" => Kind::StopSignal(self.whole()?),
            "HEALTHCHECK" => Kind::Healthcheck(self.healthcheck()?),
            "ONBUILD" => Kind::OnBuild(self.onbuild()?),
            "ENTRYPOINT" => Kind::Entrypoint(self.command()?),
            "CMD" => Kind::Cmd(self.command()?),
            "MAINTAINER" => Kind::Maintainer(self.whole()?),
            // Only FROM of the table is left, which stands in no stage.
            _ => return Err(self.error(0, 4, "FROM has no place here", None)),
        };
        Ok(Instruction { kind, text, span })
    }

    /// Arguments as a JSON list of texts, if they are one.
    fn json(&self) -> Option<Vec<String>> {
        if !self.rest.starts_with('[') {
            return None;
        }
        serde_json::from_str(self.rest).ok()
    }

    fn command(&self) -> Result<CommandLine, DockerfileError> {
        match self.json() {
            Some(words) => Ok(CommandLine::Exec(words)),
            // An empty ENTRYPOINT or CMD takes the base's away.
            None if self.rest.is_empty() && self.name != "RUN" => Ok(CommandLine::Exec(Vec::new())),
            None => Ok(CommandLine::Shell(self.whole()?)),
        }
    }

    fn list(&self) -> Result<Vec<String>, DockerfileError> {
        let words = self.json().unwrap_or_else(|| self.words().iter().map(|w| w.text.to_owned()).collect());
        match words.is_empty() {
            true => Err(self.wrong(format!("{} needs an argument", self.name), "see the Dockerfile reference")),
            false => Ok(words),
        }
    }

    fn arg(&self) -> Result<Vec<(String, Option<String>)>, DockerfileError> {
        let words = quoted(self.rest, self.offset, self.escape);
        if words.is_empty() {
            return Err(self.wrong("ARG needs a name", "ARG NAME[=DEFAULT]"));
        }
        words
            .iter()
            .map(|word| match word.text.split_once('=') {
                Some((name, value)) => Ok((self.variable(name, word)?, Some(value.to_owned()))),
                None => Ok((self.variable(word.text, word)?, None)),
            })
            .collect()
    }

    fn variable(&self, name: &str, word: &Word) -> Result<String, DockerfileError> {
        if name.is_empty() {
            return Err(self.error(word.begin, word.end(), "the name is missing", Some("NAME=VALUE")));
        }
        Ok(name.to_owned())
    }

    fn pairs(&self) -> Result<Vec<(String, String)>, DockerfileError> {
        let words = quoted(self.rest, self.offset, self.escape);
        let Some(first) = words.first() else {
            return Err(self.wrong(format!("{} needs NAME=VALUE", self.name), "NAME=VALUE …"));
        };
        if !first.text.contains('=') {
            // The old form: everything after the name is the value.
            let value = self.rest[first.text.len()..].trim_start();
            if value.is_empty() {
                let message = format!("{} {} has no value", self.name, first.text);
                return Err(self.error(first.begin, first.end(), message, Some("NAME=VALUE")));
            }
            return Ok(vec![(first.text.to_owned(), value.to_owned())]);
        }
        words
            .iter()
            .map(|word| match word.text.split_once('=') {
                Some((name, value)) => Ok((self.variable(name, word)?, value.to_owned())),
                None => {
                    let message = format!("{:?} is not NAME=VALUE", word.text);
                    Err(self.error(word.begin, word.end(), message, Some("quote a value that has blanks")))
                }
            })
            .collect()
    }

    fn run(&self) -> Result<Run, DockerfileError> {
        if self.flags.text("security")?.is_some_and(|s| s != "sandbox") {
            return Err(self.wrong("RUN --security=insecure is not supported", "leave --security out"));
        }
        let network = self.flags.text("network")?;
        if let Some(network) = &network
            && !["default", "none", "host"].contains(&network.as_str())
        {
            return Err(self.wrong(format!("unknown network {network:?}"), "default, none or host"));
        }
        Ok(Run {
            command: self.command()?,
            heredocs: self.line.heredocs.clone(),
            mounts: self.flags.mounts()?,
            network,
        })
    }

    fn transfer(&self) -> Result<Transfer, DockerfileError> {
        let mut words = match self.json() {
            Some(words) => words,
            None => self.words().iter().map(|w| w.text.to_owned()).collect(),
        };
        let usage = format!("{} SOURCE … DESTINATION", self.name);
        let Some(destination) = words.pop() else {
            return Err(self.wrong("source and destination are missing", &usage));
        };
        let heredocs = self.line.heredocs.clone();
        // Sources that are heredocs stand as `<<NAME`.
        words.retain(|w| heredocs.is_empty() || !w.starts_with("<<"));
        if words.is_empty() && heredocs.is_empty() {
            return Err(self.wrong("the destination is missing", &usage));
        }
        if words.len() + heredocs.len() > 1
            && !destination.ends_with('/')
            && !destination.contains('$')
            && destination != "."
        {
            let message =
                format!("with more than one source the destination must be a folder and end with /: {destination}");
            return Err(self.wrong(message, &usage));
        }
        Ok(Transfer {
            sources: words,
            heredocs,
            destination,
            from: self.flags.text("from")?,
            chown: self.flags.text("chown")?,
            chmod: self.flags.text("chmod")?,
            link: self.flags.flag("link")?.unwrap_or(false),
            parents: self.flags.flag("parents")?.unwrap_or(false),
            exclude: self.flags.texts("exclude")?,
            checksum: self.flags.text("checksum")?,
            unpack: self.flags.flag("unpack")?,
        })
    }

    fn healthcheck(&self) -> Result<Healthcheck, DockerfileError> {
        let usage = "HEALTHCHECK [OPTIONS] CMD COMMAND, or HEALTHCHECK NONE";
        let (kind, rest) = self.rest.split_once(char::is_whitespace).unwrap_or((self.rest, ""));
        let command = match kind.to_ascii_uppercase().as_str() {
            "NONE" if rest.trim().is_empty() => None,
            "CMD" if !rest.trim().is_empty() => {
                let rest = rest.trim();
                Some(match serde_json::from_str::<Vec<String>>(rest) {
                    Ok(words) if rest.starts_with('[') => CommandLine::Exec(words),
                    _ => CommandLine::Shell(rest.to_owned()),
                })
            }
            _ => return Err(self.wrong("HEALTHCHECK takes CMD and a command, or NONE", usage)),
        };
        Ok(Healthcheck {
            command,
            interval: self.flags.duration("interval")?,
            timeout: self.flags.duration("timeout")?,
            start_period: self.flags.duration("start-period")?,
            start_interval: self.flags.duration("start-interval")?,
            retries: self.flags.number("retries")?,
        })
    }

    fn onbuild(&self) -> Result<String, DockerfileError> {
        let trigger = self.whole()?;
        let name = trigger.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            return Err(self.wrong(format!("{name} is not allowed as a trigger"), "ONBUILD INSTRUCTION"));
        }
        // The place of an error in it is good enough as the whole trigger.
        parse_onbuild(&trigger)
            .map_err(|e| self.wrong(e.message, e.hint.as_deref().unwrap_or("ONBUILD INSTRUCTION")))?;
        Ok(trigger)
    }
}

/// A duration as Go writes it: `1h2m3.5s`, `500ms`.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut total, mut rest) = (0f64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, seconds) = units.into_iter().find(|(u, _)| rest.starts_with(u))?;
        total += number * seconds;
        rest = &rest[unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

#[cfg(test)]
#[test]
fn durations_are_go_s() {
    assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
    assert_eq!(go_duration("500ms"), Some(Duration::from_millis(500)));
    for bad in ["", "5", "s", "1x", "-1s", "1..2s"] {
        assert_eq!(go_duration(bad), None, "{bad}");
    }
}
