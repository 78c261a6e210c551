//! Logging commands: lines by which a step talks to its agent.
//!
//! Specification: "Logging commands" of the Azure Pipelines documentation, and `Command.TryParse`
//! of the agent, which finds `##vso[` anywhere in a line.

/// A logging command: `##vso[area.event key=value;…]data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingCommand {
    /// `task`, `artifact`, `build`, `release`, `telemetry`; lower case.
    pub area: String,
    /// `setvariable`, `logissue`, …; lower case.
    pub event: String,
    /// Properties in the order they were given; names in lower case.
    pub properties: Vec<(String, String)>,
    /// What follows the bracket.
    pub data: String,
}

const PREFIX: &str = "##vso[";

impl LoggingCommand {
    /// Reads the command in a line; `None` when the line has none.
    pub fn parse(line: &str) -> Option<Self> {
        // ASCII lower case keeps the byte positions.
        let start = line.to_ascii_lowercase().find(PREFIX)? + PREFIX.len();
        let rest = &line[start..];
        let end = rest.find(']')?;
        let (head, data) = (&rest[..end], &rest[end + 1..]);
        let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
        let (area, event) = name.split_once('.')?;
        if area.is_empty() || event.is_empty() || event.contains('.') {
            return None;
        }
        let properties = properties.split(';').filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let key = key.trim().to_ascii_lowercase();
            (!key.is_empty()).then(|| (key, unescape(value, PROPERTY_ESCAPES)))
        });
        Some(Self {
            area: area.to_ascii_lowercase(),
            event: event.to_ascii_lowercase(),
            properties: properties.collect(),
            data: unescape(data.trim_end_matches(['\r', '\n']), DATA_ESCAPES),
        })
    }

    /// A property, by its name in lower case.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a property is `true`, in any case.
    pub fn flag(&self, name: &str) -> bool {
        self.property(name).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// `task.setvariable`, as the table of handlers has it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.area, self.event)
    }
}

const PROPERTY_ESCAPES: &[(&str, char)] = &[("%3B", ';'), ("%0D", '\r'), ("%0A", '\n'), ("%5D", ']'), ("%AZP25", '%')];
const DATA_ESCAPES: &[(&str, char)] = &[("%0D", '\r'), ("%0A", '\n'), ("%AZP25", '%')];

/// One pass from left to right, so that `%AZP250A` is the text `%0A` and not a line end.
fn unescape(text: &str, escapes: &[(&str, char)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let found = escapes
            .iter()
            .find(|(escape, _)| rest.get(..escape.len()).is_some_and(|head| head.eq_ignore_ascii_case(escape)));
        match found {
            Some((escape, plain)) => {
                out.push(*plain);
                rest = &rest[escape.len()..];
            }
            None => {
                out.push('%');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// What a line means to who shows it: `##[group]`, `##[error]`, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Begins a group.
    Group,
    /// Ends it.
    EndGroup,
    /// A heading.
    Section,
    /// An error.
    Error,
    /// A warning.
    Warning,
    /// Shown with `System.Debug` alone.
    Debug,
    /// A command line.
    Command,
}

const FORMATS: &[(&str, Format)] = &[
    ("##[group]", Format::Group),
    ("##[endgroup]", Format::EndGroup),
    ("##[section]", Format::Section),
    ("##[error]", Format::Error),
    ("##[warning]", Format::Warning),
    ("##[debug]", Format::Debug),
    ("##[command]", Format::Command),
];

/// The format of a line, with the text it is about.
pub fn format_of(line: &str) -> Option<(Format, &str)> {
    FORMATS.iter().find_map(|(prefix, format)| line.strip_prefix(prefix).map(|rest| (*format, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_the_agent_does() {
        let command =
            LoggingCommand::parse("##vso[task.setvariable variable=a;isOutput=true;issecret=TRUE]x]y").unwrap();
        assert_eq!(command.name(), "task.setvariable");
        assert_eq!(command.property("variable"), Some("a"));
        assert!(command.flag("isoutput") && command.flag("issecret"));
        assert_eq!(command.data, "x]y");
        let inside = LoggingCommand::parse("noise ##VSO[Task.Complete result=Failed;]DONE").unwrap();
        assert_eq!((inside.name().as_str(), inside.property("result")), ("task.complete", Some("Failed")));
    }

    #[test]
    fn escapes_are_undone_once() {
        let command =
            LoggingCommand::parse("##vso[task.logissue type=error;sourcepath=a%3Bb%5D]one%0D%0Atwo %AZP250A %3B")
                .unwrap();
        assert_eq!(command.property("sourcepath"), Some("a;b]"));
        assert_eq!(command.data, "one\r\ntwo %0A %3B");
    }

    #[test]
    fn what_is_no_command_is_none() {
        for line in ["", "##vso", "##vso[task]x", "##vso[task.]x", "##vso[.x]x", "##vso[task.debug", "##[section]x"] {
            assert_eq!(LoggingCommand::parse(line), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in "\\PC{0,40}(##vso\\[)?\\PC{0,60}") {
            let _ = LoggingCommand::parse(&line);
            let _ = format_of(&line);
        }
    }
}
