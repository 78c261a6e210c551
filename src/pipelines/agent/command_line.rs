//! Command lines that pipelines give as one text.

/// Words of a command line: quotes group, a backslash takes the next character.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut begun, mut quote) = (Vec::new(), String::new(), false, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.push(c),
            (_, '\\') => word.extend(letters.next()),
            (Some(_), c) => word.push(c),
            (None, c @ ('"' | '\'')) => (quote, begun) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (None, c) => word.push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote is not closed in: {text}"));
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_command_line() {
        let split = |t: &str| words(t).unwrap();
        assert_eq!(
            split(r#"--build-arg A="b c" --target 'x y' "" \ z"#),
            ["--build-arg", "A=b c", "--target", "x y", "", " z"]
        );
        assert!(words("\"open").is_err());
    }
}
