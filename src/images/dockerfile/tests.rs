//! Golden pairs: `fixtures/images/parse/NAME.Dockerfile` → `NAME.json`, or `NAME.error` for what is wrong.
//! `AKSIM_UPDATE_FIXTURES=1 cargo test dockerfile` writes them anew.

use super::*;
use std::path::Path;

fn source(text: &str) -> Source {
    Source { name: "Dockerfile".into(), text: text.to_owned().into() }
}

#[test]
fn golden_pairs_hold() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/images/parse");
    let update = std::env::var_os("AKSIM_UPDATE_FIXTURES").is_some();
    let mut seen = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "Dockerfile") {
            continue;
        }
        seen += 1;
        let (extension, got) = match parse(&source(&std::fs::read_to_string(&path).unwrap())) {
            Ok(file) => ("json", serde_json::to_string_pretty(&file).unwrap() + "\n"),
            Err(error) => ("error", error.excerpt().lines().map(|l| l.trim_end().to_owned() + "\n").collect()),
        };
        let golden = path.with_extension(extension);
        if update {
            std::fs::write(&golden, got).unwrap();
            continue;
        }
        let want = std::fs::read_to_string(&golden).unwrap_or_else(|e| panic!("{}: {e}", golden.display()));
        assert_eq!(got, want, "{}", path.display());
    }
    assert!(seen > 0);
}

#[test]
fn errors_have_line_and_column() {
    for (text, line, column, message) in [
        ("FROM scratch\nCPOY a b\n", 2, 1, "unknown instruction: CPOY"),
        ("FROM scratch\n  COPY --form=x a b\n", 2, 8, "unknown flag for COPY: --form"),
        ("FROM scratch\nRUN a \\\n  && b\n\nFRMO x", 5, 1, "unknown instruction: FRMO"),
        ("RUN x\nFROM scratch", 1, 1, "only ARG may stand before the first FROM"),
        ("FROM a AS b c\n", 1, 6, "FROM takes an image and perhaps AS and a name"),
        ("", 1, 1, "the file has no FROM"),
        ("FROM scratch\nRUN <<EOF\nx\n", 2, 5, "heredoc EOF does not end"),
        ("FROM a as b\nFROM c as B", 2, 1, "stage name \"b\" is used twice"),
        ("# escape=x\nFROM a", 1, 1, "invalid escape directive \"x\""),
        ("FROM scratch\nENV A\n", 2, 5, "ENV A has no value"),
        ("FROM scratch\nRUN --mount=type=ssh x\n", 2, 5, "unsupported mount type \"ssh\""),
        ("FROM scratch\nHEALTHCHECK --interval=5 CMD x\n", 2, 13, "\"5\" is not a duration"),
        ("FROM scratch\nCOPY a\n", 2, 6, "the destination is missing"),
    ] {
        let error = parse(&source(text)).unwrap_err();
        assert_eq!((error.line, error.column, error.message.as_str()), (line, column, message), "{text:?}");
    }
}

#[test]
fn a_wrong_word_has_a_suggestion() {
    let error = parse(&source("FROM scratch\nENTRYPIONT x")).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean ENTRYPOINT?"));
    let error = parse(&source("FROM scratch\nCOPY --chwon=1 a b")).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean --chown?"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s)(FROM a\n)?.{0,80}") {
        let _ = parse(&source(&text));
    }
    #[test]
    fn no_instruction_makes_the_parser_panic(
        lines in proptest::collection::vec("(RUN|COPY|ADD|ENV|ARG|FROM|LABEL|HEALTHCHECK|ONBUILD|SHELL)[ \\\\\"'a=<\\-\\[{$\n]{0,20}", 0..6)
    ) {
        let _ = parse(&source(&lines.join("\n")));
    }
}
