//! Every command that aksim tells a person to run is one that it understands.

use super::args::Cli;
use clap::Parser;
use regex::Regex;
use std::path::Path;

/// Comments, which only those who read the source see, texts, raw texts, and characters, which may be quotes.
const TOKENS: &str = r###"(?xs)
    //[^\n]* | /\*.*?\*/
    | r\#\#"(?<raw2>.*?)"\#\# | r\#"(?<raw1>.*?)"\# | \br"(?<raw0>[^"]*)"
    | "(?<text>(?:[^"\\]|\\.)*)"
    | '(?:[^'\\]|\\[^']+)'"###;

/// The texts of Rust source.
fn texts(source: &str) -> Vec<String> {
    let (tokens, continued) = (Regex::new(TOKENS).unwrap(), Regex::new(r"\\\n\s*").unwrap());
    let found = tokens.captures_iter(source).filter_map(|token| {
        let raw = ["raw2", "raw1", "raw0"].into_iter().find_map(|name| token.name(name));
        match raw {
            Some(raw) => Some(raw.as_str().to_owned()),
            None => Some(continued.replace_all(token.name("text")?.as_str(), "").replace("\\n", "\n")),
        }
    });
    found.collect()
}

/// Every text of aksim's sources and of the tables beside them, with its file.
fn all_texts() -> Vec<(String, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut found, mut folders) = (Vec::new(), vec![source.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path.strip_prefix(source).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if file.ends_with("advice_tests.rs") {
                // What is here is no advice.
            } else if file.ends_with(".rs") {
                let content = std::fs::read_to_string(&path).unwrap();
                found.extend(texts(&content).into_iter().map(|text| (file.clone(), text)));
            } else if file.ends_with(".toml") {
                found.push((file, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The commands of aksim that stand between backticks in a text.
fn commands(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|quoted| quoted.starts_with("aksim ") && !quoted.contains('\n')).collect()
}

/// The command with a value for each placeholder: a word in capitals, or what a format puts in. `None` when even the
/// verb is put in.
fn filled_in(command: &str) -> Option<Vec<String>> {
    let capitals = |part: &str| part.starts_with(char::is_alphabetic) && part == part.to_uppercase();
    let value = |part: &str| if part.starts_with('{') || capitals(part) { "1".to_owned() } else { part.to_owned() };
    let word = |word: &str| word.split('=').map(value).collect::<Vec<_>>().join("=");
    let words: Vec<&str> = command.split_whitespace().collect();
    (!words.get(1)?.starts_with('{')).then(|| words.into_iter().map(word).collect())
}

#[test]
fn every_command_in_a_text_is_one_of_the_command_line() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (file, text) in all_texts() {
        for command in commands(&text) {
            let Some(words) = filled_in(command) else { continue };
            tried += 1;
            if let Err(error) = Cli::try_parse_from(&words) {
                let why = error.to_string().lines().next().unwrap_or_default().to_owned();
                wrong.push(format!("{file}: `{command}`: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 30, "{tried}");
}

#[test]
fn commands_are_found_and_filled_in() {
    let source = "/// `aksim no doc` \"\nlet c = '\"'; g(\"run `aksim up \\\n   --detach`\", r#\"\"`aksim down`\"#); // `aksim none`";
    let found: Vec<String> = texts(source);
    assert_eq!(found.iter().flat_map(|text| commands(text)).collect::<Vec<_>>(), ["aksim up --detach", "aksim down"]);
    assert_eq!(filled_in("aksim scenario run NAME --set NAME=VALUE").unwrap()[3..], ["1", "--set", "1=1"]);
    assert!(filled_in("aksim {}").is_none());
    assert!(Cli::try_parse_from(filled_in("aksim status identity").unwrap()).is_err());
}
