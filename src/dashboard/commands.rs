//! The `:` command line: what can be typed, and how it completes.

use super::tabs::Tab;
use aksim_model::suggest::nearest;

/// A command that was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Switch to a tab.
    Show(Tab),
    /// Show logs of one service, or of all.
    Logs(Option<String>),
    /// Show the addresses of a service, or of all.
    Open(Option<String>),
    /// Build and roll out a service, or all.
    Trigger(Option<String>),
    /// Filter the rows of the tab.
    Filter(String),
    /// Find text in logs.
    Search(String),
    /// Stop the environment.
    Stop,
    /// Leave the dashboard.
    Quit,
}

/// A row of the command table.
pub struct Verb {
    /// What is typed.
    pub name: &'static str,
    /// Other spellings.
    pub aliases: &'static [&'static str],
    /// What follows it, for people.
    pub argument: &'static str,
    /// What it does, for people.
    pub help: &'static str,
}

/// All commands.
pub const VERBS: &[Verb] = &[
    Verb { name: "flow", aliases: &[], argument: "", help: "the data flow" },
    Verb { name: "services", aliases: &["svc", "service"], argument: "", help: "services" },
    Verb { name: "logs", aliases: &["log"], argument: "[service]", help: "logs, of one service or of all" },
    Verb { name: "journeys", aliases: &["journey"], argument: "", help: "journeys of changes" },
    Verb { name: "pipelines", aliases: &["pipeline", "runs"], argument: "", help: "runs of pipelines" },
    Verb { name: "help", aliases: &["h", "?"], argument: "", help: "keys and commands" },
    Verb { name: "trigger", aliases: &[], argument: "[service]", help: "build and roll out, one service or all" },
    Verb { name: "open", aliases: &["url"], argument: "[service]", help: "show addresses" },
    Verb { name: "filter", aliases: &[], argument: "TEXT", help: "show only rows with TEXT" },
    Verb { name: "search", aliases: &["find"], argument: "TEXT", help: "find TEXT in logs" },
    Verb { name: "stop", aliases: &["down"], argument: "", help: "stop the environment" },
    Verb { name: "quit", aliases: &["q", "q!", "exit"], argument: "", help: "leave the dashboard" },
];

/// Reads a command.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(line: &str, services: &[String]) -> Result<Typed, String> {
    let line = line.trim();
    let (word, argument) = line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim()));
    let verb = VERBS
        .iter()
        .find(|v| v.name == word || v.aliases.contains(&word))
        .ok_or_else(|| unknown("command", word, VERBS.iter().map(|v| v.name)))?;
    let service = || match argument {
        "" => Ok(None),
        name if services.iter().any(|s| s == name) => Ok(Some(name.to_owned())),
        name => Err(unknown("service", name, services.iter().map(String::as_str))),
    };
    if verb.argument.is_empty() && !argument.is_empty() {
        return Err(format!("`{}` takes nothing after it", verb.name));
    }
    Ok(match verb.name {
        "flow" => Typed::Show(Tab::Flow),
        "services" => Typed::Show(Tab::Services),
        "logs" => Typed::Logs(service()?),
        "journeys" => Typed::Show(Tab::Journeys),
        "pipelines" => Typed::Show(Tab::Pipelines),
        "help" => Typed::Show(Tab::Help),
        "trigger" => Typed::Trigger(service()?),
        "open" => Typed::Open(service()?),
        "filter" => Typed::Filter(argument.to_owned()),
        "search" => Typed::Search(argument.to_owned()),
        "stop" => Typed::Stop,
        _ => Typed::Quit,
    })
}

fn unknown<'a>(what: &str, given: &str, known: impl Iterator<Item = &'a str>) -> String {
    match nearest(given, known) {
        Some(known) => format!("no {what} `{given}`; did you mean `{known}`?"),
        None => format!("no {what} `{given}`"),
    }
}

/// Lines that `line` may become, in the order of the table.
pub fn complete(line: &str, services: &[String]) -> Vec<String> {
    let line = line.trim_start();
    match line.split_once(' ') {
        None => VERBS.iter().map(|v| v.name).filter(|name| name.starts_with(line)).map(str::to_owned).collect(),
        Some((word, rest)) => {
            let takes_service =
                VERBS.iter().any(|v| v.argument == "[service]" && (v.name == word || v.aliases.contains(&word)));
            let rest = rest.trim_start();
            services
                .iter()
                .filter(|s| takes_service && s.starts_with(rest))
                .map(|service| format!("{word} {service}"))
                .collect()
        }
    }
}

/// The longest line that all of `lines` begin with.
pub fn common_start(lines: &[String]) -> Option<String> {
    let mut common = lines.first()?.clone();
    for line in lines {
        let same = common.char_indices().zip(line.chars()).take_while(|((_, a), b)| a == b).count();
        common = common.chars().take(same).collect();
    }
    Some(common)
}

#[cfg(test)]
mod unit {
    use super::*;

    fn services() -> Vec<String> {
        ["catalog", "cart", "web"].map(str::to_owned).to_vec()
    }

    #[test]
    fn every_verb_parses() {
        for verb in VERBS {
            for name in verb.aliases.iter().chain([&verb.name]) {
                assert!(parse(name, &[]).is_ok(), "{name}");
            }
        }
        assert_eq!(parse(" logs  web ", &services()), Ok(Typed::Logs(Some("web".into()))));
        assert_eq!(parse("trigger", &services()), Ok(Typed::Trigger(None)));
        assert_eq!(parse("search a b", &services()), Ok(Typed::Search("a b".into())));
    }

    #[test]
    fn errors_suggest() {
        assert_eq!(parse("trigegr", &[]).unwrap_err(), "no command `trigegr`; did you mean `trigger`?");
        assert_eq!(
            parse("logs catalogue", &services()).unwrap_err(),
            "no service `catalogue`; did you mean `catalog`?"
        );
        assert_eq!(parse("logs zzz", &[]).unwrap_err(), "no service `zzz`");
        assert_eq!(parse("quit now", &[]).unwrap_err(), "`quit` takes nothing after it");
    }

    #[test]
    fn completes() {
        assert_eq!(complete("s", &[]), ["services", "search", "stop"]);
        assert_eq!(complete("logs ca", &services()), ["logs catalog", "logs cart"]);
        assert_eq!(common_start(&complete("logs ca", &services())).unwrap(), "logs ca");
        assert_eq!(common_start(&complete("tri", &[])).unwrap(), "trigger");
        assert!(complete("flow x", &services()).is_empty());
        assert_eq!(common_start(&[]), None);
    }
}
