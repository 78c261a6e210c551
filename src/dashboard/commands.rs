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

/// What a verb means, by what may follow it.
pub enum Meaning {
    /// Nothing may.
    Alone(Typed),
    /// The name of a service, or nothing for all.
    Service(fn(Option<String>) -> Typed),
    /// Any text.
    Text(fn(String) -> Typed),
}

impl Meaning {
    /// What follows the verb, for people.
    pub fn argument(&self) -> &'static str {
        match self {
            Self::Alone(_) => "",
            Self::Service(_) => "[service]",
            Self::Text(_) => "TEXT",
        }
    }
}

/// A row of the command table.
pub struct Verb {
    /// What is typed.
    pub name: &'static str,
    /// Other spellings.
    pub aliases: &'static [&'static str],
    /// What it means.
    pub meaning: Meaning,
    /// What it does, for people.
    pub help: &'static str,
}

impl Verb {
    fn is(&self, word: &str) -> bool {
        self.name == word || self.aliases.contains(&word)
    }
}

/// The commands that are no tab's.
static VERBS: &[Verb] = &[
    Verb {
        name: "trigger",
        aliases: &[],
        meaning: Meaning::Service(Typed::Trigger),
        help: "build and roll out, one service or all",
    },
    Verb { name: "open", aliases: &["url"], meaning: Meaning::Service(Typed::Open), help: "show addresses" },
    Verb { name: "filter", aliases: &[], meaning: Meaning::Text(Typed::Filter), help: "show only rows with TEXT" },
    Verb { name: "search", aliases: &["find"], meaning: Meaning::Text(Typed::Search), help: "find TEXT in logs" },
    Verb { name: "stop", aliases: &["down"], meaning: Meaning::Alone(Typed::Stop), help: "stop the environment" },
    Verb {
        name: "quit",
        aliases: &["q", "q!", "exit"],
        meaning: Meaning::Alone(Typed::Quit),
        help: "leave the dashboard",
    },
];

/// All commands: those of the tabs, in their order, and the others.
pub fn verbs() -> impl Iterator<Item = &'static Verb> {
    Tab::ALL.into_iter().map(Tab::verb).chain(VERBS)
}

/// Reads a command.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(line: &str, services: &[String]) -> Result<Typed, String> {
    let line = line.trim();
    let (word, argument) = line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim()));
    let verb = verbs().find(|verb| verb.is(word)).ok_or_else(|| unknown_verb(word))?;
    match (&verb.meaning, argument) {
        (Meaning::Alone(typed), "") => Ok(typed.clone()),
        (Meaning::Alone(_), _) => Err(format!("`{}` takes nothing after it", verb.name)),
        (Meaning::Service(typed), "") => Ok(typed(None)),
        (Meaning::Service(typed), name) if services.iter().any(|s| s == name) => Ok(typed(Some(name.to_owned()))),
        (Meaning::Service(_), name) => Err(unknown_service(name, services)),
        (Meaning::Text(typed), text) => Ok(typed(text.to_owned())),
    }
}

fn unknown_verb(word: &str) -> String {
    let known = verbs().flat_map(|verb| verb.aliases.iter().copied().chain([verb.name]));
    match nearest(word, known) {
        Some(known) => format!("no command `{word}`; did you mean `{known}`?"),
        None => format!("no command `{word}`; `help` lists them"),
    }
}

fn unknown_service(name: &str, services: &[String]) -> String {
    match nearest(name, services.iter().map(String::as_str)) {
        Some(known) => format!("no service `{name}`; did you mean `{known}`?"),
        None => format!("no service `{name}`"),
    }
}

/// Lines that `line` may become, in the order of the table.
pub fn complete(line: &str, services: &[String]) -> Vec<String> {
    let line = line.trim_start();
    match line.split_once(' ') {
        None => verbs().map(|v| v.name).filter(|name| name.starts_with(line)).map(str::to_owned).collect(),
        Some((word, rest)) => {
            let takes_service = verbs().any(|verb| verb.is(word) && matches!(verb.meaning, Meaning::Service(_)));
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
        for verb in verbs() {
            for name in verb.aliases.iter().chain([&verb.name]) {
                assert!(parse(name, &[]).is_ok(), "{name}");
                assert_eq!(verbs().filter(|other| other.is(name)).count(), 1, "{name} is two commands");
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
        assert_eq!(parse("exti", &[]).unwrap_err(), "no command `exti`; did you mean `exit`?");
        assert_eq!(parse("zzz", &[]).unwrap_err(), "no command `zzz`; `help` lists them");
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
