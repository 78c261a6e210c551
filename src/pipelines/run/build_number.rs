//! Run numbers: `$(Date:yyyyMMdd).$(Rev:r)` and variables.

use crate::{context::RunContext, engine::EngineError};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// The number of a run by the plan's `name`.
///
/// # Errors
/// When the revision cannot be kept, or the result is not a run number.
pub fn of(context: &RunContext) -> Result<String, EngineError> {
    let format = &context.plan.name;
    let now = Timestamp::now().to_zoned(TimeZone::UTC).datetime();
    let mut name = expand(format, now, |macro_name| context.variables.get(macro_name).map(str::to_owned));
    if let Some((start, end, pattern)) = revision(&name) {
        let rest = format!("{}{}", &name[..start], &name[end..]);
        let pipeline = context.variables.get("Build.DefinitionName").unwrap_or_default();
        let number = context.engine.store.next_revision(pipeline, &rest)?;
        let digits = pattern.matches('r').count();
        let text = pattern.replacen(&"r".repeat(digits), &format!("{number:0digits$}"), 1);
        name.replace_range(start..end, &text);
    }
    let name = context.masker.mask(name.trim());
    if name.is_empty() || name.len() > 255 || name.contains(|c| "\"/:<>\\|?@*".contains(c)) || name.ends_with('.') {
        return Err(EngineError::Refused(format!(
            "The run number format {format} gives {name:?}, which has characters that are not allowed, is too long, or ends with '.'."
        )));
    }
    Ok(name)
}

/// Everything but the revision.
fn expand(format: &str, now: DateTime, lookup: impl Fn(&str) -> Option<String>) -> String {
    crate::expression::expand_macros(format, &|name| {
        if let Some(pattern) = strip(name, "Date:") {
            return Some(date(pattern, now));
        }
        match name.to_ascii_lowercase().as_str() {
            "dayofmonth" => Some(now.day().to_string()),
            "dayofyear" => Some(now.day_of_year().to_string()),
            "month" => Some(now.month().to_string()),
            "year:yy" => Some(format!("{:02}", now.year() % 100)),
            "year:yyyy" => Some(now.year().to_string()),
            "hours" => Some(now.hour().to_string()),
            "minutes" => Some(now.minute().to_string()),
            "seconds" => Some(now.second().to_string()),
            "buildid" => lookup("Build.BuildId"),
            "builddefinitionname" | "definitionname" => lookup("Build.DefinitionName"),
            "sourcebranchname" => lookup("Build.SourceBranchName"),
            "teamproject" => lookup("System.TeamProject"),
            _ => lookup(name),
        }
    })
}

fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)).map(|_| &text[prefix.len()..])
}

/// Custom date formats of .NET, as far as run numbers use them.
fn date(pattern: &str, now: DateTime) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        let count = rest.chars().take_while(|c| *c == letter).count();
        let number = match letter {
            'y' if count <= 2 => Some(i32::from(now.year()) % 100),
            'y' => Some(now.year().into()),
            'M' => Some(now.month().into()),
            'd' => Some(now.day().into()),
            'H' => Some(now.hour().into()),
            'h' => Some((i32::from(now.hour()) + 11) % 12 + 1),
            'm' => Some(now.minute().into()),
            's' => Some(now.second().into()),
            _ => None,
        };
        match number {
            Some(number) => out.push_str(&format!("{number:0count$}")),
            None => out.extend(std::iter::repeat_n(letter, count)),
        }
        rest = &rest[letter.len_utf8() * count..];
    }
    out
}

/// Where `$(Rev:…)` is, and its pattern.
fn revision(name: &str) -> Option<(usize, usize, String)> {
    let start = name.to_ascii_lowercase().find("$(rev:")?;
    let end = start + name[start..].find(')')? + 1;
    let pattern = &name[start + "$(rev:".len()..end - 1];
    Some((start, end, pattern.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_revisions() {
        let now = jiff::civil::date(2026, 3, 7).at(9, 5, 0, 0);
        let expanded = expand("$(Date:yyyyMMdd)$(Rev:.r)-$(SourceBranchName)-$(x)", now, |name| {
            (name == "Build.SourceBranchName").then(|| "main".to_owned())
        });
        assert_eq!(expanded, "20260307$(Rev:.r)-main-$(x)");
        let (start, end, pattern) = revision(&expanded).unwrap();
        assert_eq!((&expanded[start..end], pattern.as_str()), ("$(Rev:.r)", ".r"));
        assert_eq!(date("yy.M.dd HH:mm", now), "26.3.07 09:05");
    }
}
