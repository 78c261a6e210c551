//! "Did you mean …?": the known name that a mistyped one was probably meant to be.

/// The known name nearest to one that is not known, if any is near: at most a third of its letters are wrong, missing,
/// too many or in the wrong order, or it is how just one known name begins. Case does not count.
pub fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let given = given.to_lowercase();
    let letters = given.chars().count();
    let (mut near, mut begun) = (Vec::new(), Vec::new());
    for name in known {
        let lower = name.to_lowercase();
        let distance = strsim::damerau_levenshtein(&given, &lower);
        if distance <= letters.max(lower.chars().count()) / 3 {
            near.push((distance, name));
        }
        if letters >= 3 && lower.starts_with(&given) {
            begun.push(name);
        }
    }
    match (near.into_iter().min(), &begun[..]) {
        (Some((_, name)), _) => Some(name),
        (None, [name]) => Some(name),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_are_near_and_others_are_not() {
        let known = ["logs", "trigger", "registry", "self-healing", "self-signed", "catalog", "db"];
        for (given, meant) in [
            ("lgos", Some("logs")),
            ("trigegr", Some("trigger")),
            ("REGSTRY", Some("registry")),
            ("catalogue", Some("catalog")),
            ("cat", Some("catalog")),
            ("self-heal", Some("self-healing")),
            ("self", None),
            ("dc", None),
            ("", None),
            ("orders", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
        assert_eq!(nearest("logs", []), None);
    }
}
