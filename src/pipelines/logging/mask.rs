//! Replaces secrets in text by `***`.
//!
//! As the agent does, a secret is also known in the forms that programs print it in: JSON-escaped,
//! URL-escaped, with backslashes doubled, in base64 at each of the three alignments, and a secret of several lines
//! line by line. Passwords in URLs are masked whether they are known or not.

use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::RwLock;
use std::{collections::BTreeSet, ops::Range, sync::LazyLock};

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Shortest part of a base64 form that is masked: shorter ones would hit ordinary words.
const BASE64_MIN: usize = 6;

/// The secrets of a run; grows while it runs.
#[derive(Debug, Default)]
pub struct SecretMasker {
    // Longest first, so that a secret that contains another is masked whole.
    forms: RwLock<Vec<String>>,
}

impl SecretMasker {
    /// Makes a value a secret. Empty and blank values are not: everything would match.
    pub fn add(&self, secret: &str) {
        let mut found = BTreeSet::new();
        for value in std::iter::once(secret).chain(secret.lines()) {
            let value = value.trim_matches(['\r', '\n']);
            if !value.trim().is_empty() {
                found.extend(forms_of(value));
            }
        }
        let mut forms = self.forms.write();
        for form in found {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// The text with every secret replaced.
    pub fn mask(&self, text: &str) -> String {
        let ranges = self.ranges(text);
        if ranges.is_empty() {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for range in ranges {
            out.push_str(&text[at..range.start]);
            out.push_str(MASK);
            at = range.end;
        }
        out.push_str(&text[at..]);
        out
    }

    /// The largest position not after `limit` at which a long line can be cut without cutting a secret
    /// in two, whether it is whole already or only begun at the end. 0 when there is none.
    pub fn safe_cut(&self, text: &str, limit: usize) -> usize {
        let longest = self.forms.read().first().map_or(0, String::len);
        let mut cut = limit.min(text.len().saturating_sub(longest.saturating_sub(1)));
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        for range in self.ranges(text) {
            if range.start < cut && cut < range.end {
                cut = range.start;
            }
        }
        cut
    }

    /// Where secrets are, merged and in order.
    fn ranges(&self, text: &str) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for form in self.forms.read().iter() {
            // Overlapping occurrences too: `aa` in `aaa` leaves no `a` behind.
            let mut from = 0;
            while let Some(at) = text[from..].find(form.as_str()) {
                let start = from + at;
                found.push(start..start + form.len());
                from = start + text[start..].chars().next().map_or(1, char::len_utf8);
            }
        }
        for captures in URL_PASSWORD.captures_iter(text) {
            found.extend(captures.get(1).map(|password| password.range()));
        }
        found.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for range in found {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

// The pattern is a constant and parses; the agent calls it UrlSecretPattern.
static URL_PASSWORD: LazyLock<regex::Regex> =
    LazyLock::new(|| regex::Regex::new(r"(?i)\b[a-z][a-z0-9+.-]*://[^:/?#\s@]*:([^/?#\s@]+)@").expect("a constant"));

fn forms_of(value: &str) -> Vec<String> {
    let json = serde_json::to_string(value).unwrap_or_default();
    let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
    let url: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let mut forms = vec![value.to_owned(), json, url.replace('+', "%20"), url, value.replace('\\', "\\\\")];
    for shift in 0..3 {
        forms.extend(base64_core(value.as_bytes(), shift));
    }
    forms.retain(|form| !form.is_empty());
    forms
}

/// The characters of a base64 text that depend on the value alone when `shift` unknown bytes precede it.
fn base64_core(value: &[u8], shift: usize) -> Option<String> {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(value);
    let text = STANDARD.encode(&padded);
    // A character holds six bits; those that share bits with unknown bytes, before or after, go.
    let first = (shift * 8).div_ceil(6);
    let whole = padded.len() * 8 / 6;
    let core = text.get(first..whole)?;
    (core.len() >= BASE64_MIN).then(|| core.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masker(secrets: &[&str]) -> SecretMasker {
        let masker = SecretMasker::default();
        secrets.iter().for_each(|s| masker.add(s));
        masker
    }

    #[test]
    fn plain_escaped_and_encoded() {
        let secret = "p@ss \"w\\rd/1";
        let masker = masker(&[secret]);
        assert_eq!(masker.mask(&format!("a {secret} b")), "a *** b");
        assert_eq!(masker.mask(&serde_json::json!({ "x": secret }).to_string()), r#"{"x":"***"}"#);
        for text in ["p%40ss%20%22w%5Crd%2F1", "p%40ss+%22w%5Crd%2F1"] {
            assert_eq!(masker.mask(text), MASK);
        }
        for before in ["", "u:", "user"] {
            let encoded = STANDARD.encode(format!("{before}{secret}"));
            let masked = masker.mask(&encoded);
            assert!(masked.contains(MASK), "{before}: {masked}");
            assert!(masked.len() - MASK.len() <= before.len() * 4 / 3 + 5, "{before}: {masked}");
        }
    }

    #[test]
    fn lines_of_a_secret_overlaps_and_urls() {
        let masker = masker(&["first-line\r\nsecond-line\n", "abab", "abababc"]);
        assert_eq!(masker.mask("second-line then first-line"), "*** then ***");
        assert_eq!(masker.mask("xabababx abababc"), "x***x ***");
        assert_eq!(masker.mask("git clone https://me:hunter2@host/r"), "git clone https://me:***@host/r");
        assert_eq!(SecretMasker::default().mask(" "), " ");
    }

    #[test]
    fn a_long_line_is_not_cut_through_a_secret() {
        let masker = masker(&["0123456789"]);
        let text = "aaaaa0123456789bbbbbbbbbbbb";
        assert_eq!(masker.safe_cut(text, 8), 5);
        // The tail may be the beginning of a secret.
        assert!(masker.safe_cut("aaaaa01234567", 13) <= 5);
    }

    #[test]
    fn blank_is_no_secret() {
        assert_eq!(masker(&["", " ", "\n"]).mask("a b"), "a b");
    }
}
