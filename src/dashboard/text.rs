//! Text from outside made fit for a terminal: no control sequences, measured in columns.

use jiff::Timestamp;
use ratatui::text::Span;

/// `text` without terminal control sequences and other control characters; a tab is two spaces.
///
/// Compiler output and log lines are somebody else's: they must not move the cursor.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // Control Sequence Introducer: up to a final byte.
                Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                // Operating System Command: up to BEL or ESC \.
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\t' => out.push_str("  "),
            '\n' => out.push('\n'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Columns that `text` takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// `text` cut to `columns`, with `ellipsis` where something was cut off.
pub fn fit(text: &str, columns: usize, ellipsis: &str) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(width(ellipsis));
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let takes = width(c.encode_utf8(&mut [0; 4]));
        if used + takes > room {
            break;
        }
        used += takes;
        out.push(c);
    }
    if columns >= width(ellipsis) {
        out.push_str(ellipsis);
    }
    out
}

/// How long ago, in one unit: `now`, `8s`, `3m`, `2h`, `4d`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    match now.as_second() - then.as_second() {
        ..1 => "now".into(),
        s @ 1..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// A span of time for people: `85 ms`, `1.84 s`, `2m 05s`.
pub fn duration(ms: i64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.2} s", ms as f64 / 1000.0),
        _ => format!("{}m {:02}s", ms / 60_000, ms / 1000 % 60),
    }
}

/// The part of a version that tells it apart: the first digits of a digest, else all of it.
pub fn short_version(version: &str) -> &str {
    match version.rsplit_once("sha256:") {
        Some((_, hex)) => hex.get(..12).unwrap_or(hex),
        None => version,
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn removes_what_moves_the_cursor() {
        assert_eq!(plain("\u{1b}[1;31merror\u{1b}[0m: \u{1b}]0;title\u{7}x\ry\tz"), "error: xy  z");
        assert_eq!(plain("\u{1b}]8;;http://a\u{1b}\\link\u{1b}]8;;\u{1b}\\"), "link");
        assert_eq!(plain("cut \u{1b}["), "cut ");
        assert_eq!(plain("grüß\ngott"), "grüß\ngott");
    }

    #[test]
    fn fits_columns_not_bytes() {
        assert_eq!(fit("catalog", 7, "…"), "catalog");
        assert_eq!(fit("catalog", 5, "…"), "cata…");
        assert_eq!(fit("日本語", 5, "…"), "日本…");
        assert_eq!(fit("abc", 0, "…"), "");
    }

    #[test]
    fn times() {
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(age(at(100), at(100)), "now");
        assert_eq!(age(at(100), at(90)), "now");
        assert_eq!(age(at(0), at(59)), "59s");
        assert_eq!(age(at(0), at(7200)), "2h");
        assert_eq!(duration(85), "85 ms");
        assert_eq!(duration(1840), "1.84 s");
        assert_eq!(duration(125_000), "2m 05s");
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_never_too_wide(text in ".*", columns in 0usize..40) {
            let plain = plain(&text);
            proptest::prop_assert!(!plain.contains(char::from(27)));
            proptest::prop_assert!(width(&fit(&plain, columns, "…")) <= columns);
        }
    }
}
