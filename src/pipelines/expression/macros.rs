//! `$(name)` macros.

/// Replaces every `$(name)` that `lookup` knows, in one pass: what a value brings is not read again, and a macro
/// that is not known stays as it is, as the agent does it.
pub fn expand_macros(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("$(") {
        let after = &rest[begin + 2..];
        let Some(end) = after.find(')') else { break };
        result.push_str(&rest[..begin]);
        if let Some(value) = lookup(&after[..end]) {
            result.push_str(&value);
            rest = &after[end + 1..];
        } else {
            // Only the `$` is passed over: an inner `$(` may be known.
            result.push('$');
            rest = &rest[begin + 1..];
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_and_unknown_stays() {
        let lookup = |name: &str| match name {
            "a" => Some("$(b)".to_owned()),
            "b" => Some("B".to_owned()),
            _ => None,
        };
        let expand = |text| expand_macros(text, &lookup);
        assert_eq!(expand("x $(a) $(b)$(c) $(b"), "x $(b) B$(c) $(b");
        assert_eq!(expand("$($(b))"), "$(B)");
        assert_eq!(expand("$(date +%s) $(b)"), "$(date +%s) B");
        assert_eq!(expand("$("), "$(");
    }
}
