//! Cron schedules of five fields, or `@hourly` and the like.
//!
//! Our own, because a schedule has to be accepted and refused exactly as kube-apiserver does (the
//! parser `robfig/cron` 3, `ParseStandard`, whose words the errors repeat), and has to run on the
//! project's time library; the kept crates bring another one and other dialects.

use jiff::{SignedDuration, Span, Timestamp, Zoned, tz::TimeZone};

/// Why a text is no schedule, in the words of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

/// How far ahead a schedule is looked for before it counts as one that never comes (February 30).
const HORIZON_YEARS: i16 = 5;

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CronSchedule {
    /// At the times that the fields select.
    Fields(Fields),
    /// In a constant rhythm (`@every 1h30m`), at least a second.
    Every(SignedDuration),
}

/// Sets of values as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day of month or day of week is `*`: then both must match, else one is enough.
    any_day: bool,
}

/// Bounds and names of a field.
struct Bounds {
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { least: 0, most: 59, names: &[] };
const HOURS: Bounds = Bounds { least: 0, most: 23, names: &[] };
const DAYS: Bounds = Bounds { least: 1, most: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl CronSchedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// In the words of Kubernetes: a wrong number of fields, a value out of bounds, an unknown macro.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError("empty spec string".into()));
        }
        if text.starts_with('@') {
            return Self::descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            let list = fields.join(" ");
            return Err(CronError(format!("expected exactly 5 fields, found {}: [{list}]", fields.len())));
        };
        let (minutes, _) = field(minutes, &MINUTES)?;
        let (hours, _) = field(hours, &HOURS)?;
        let (days, any_day) = field(days, &DAYS)?;
        let (months, _) = field(months, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
        Ok(Self::Fields(Fields { minutes, hours, days, months, weekdays, any_day: any_day || any_weekday }))
    }

    fn descriptor(text: &str) -> Result<Self, CronError> {
        match text {
            "@yearly" | "@annually" => Self::parse("0 0 1 1 *"),
            "@monthly" => Self::parse("0 0 1 * *"),
            "@weekly" => Self::parse("0 0 * * 0"),
            "@daily" | "@midnight" => Self::parse("0 0 * * *"),
            "@hourly" => Self::parse("0 * * * *"),
            _ => match text.strip_prefix("@every ") {
                Some(rest) => duration(rest)
                    .map(|seconds| Self::Every(SignedDuration::from_secs(seconds.max(1))))
                    .ok_or_else(|| CronError(format!("failed to parse duration {text}: invalid duration {rest:?}"))),
                None => Err(CronError(format!("unrecognized descriptor: {text}"))),
            },
        }
    }

    /// The first time after `after`, on the clocks of a time zone. `None` when it never comes.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(delay) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*delay).ok(),
            Self::Fields(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let second = after.as_second();
        let mut at = Timestamp::from_second(second - second.rem_euclid(60) + 60).ok()?.to_zoned(zone.clone());
        let last = at.year().saturating_add(HORIZON_YEARS);
        // Time goes on in hours that pass, so an hour that summer time leaves out is not run and one
        // that it repeats is run twice, as Kubernetes has it.
        while at.year() <= last {
            if !has(self.months, at.month()) {
                at = at.first_of_month().ok()?.checked_add(Span::new().months(1)).ok()?.start_of_day().ok()?;
            } else if !self.has_day(&at) {
                at = at.tomorrow().ok()?.start_of_day().ok()?;
            } else if !has(self.hours, at.hour()) {
                at = at.checked_add(SignedDuration::from_mins(60 - i64::from(at.minute()))).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(SignedDuration::from_mins(1)).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    fn has_day(&self, at: &Zoned) -> bool {
        let (day, weekday) = (has(self.days, at.day()), has(self.weekdays, at.weekday().to_sunday_zero_offset()));
        if self.any_day { day && weekday } else { day || weekday }
    }
}

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|v| set & (1 << v) != 0)
}

/// The values of a field, and whether it is `*`.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), CronError> {
    let (mut set, mut any) = (0, false);
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (values, star) = range(part, bounds)?;
        set |= values;
        any |= star;
    }
    Ok((set, any))
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), CronError> {
    let fail = |what: String| Err(CronError(format!("{what}: {text}")));
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (first, mut last) = match ends[..] {
        _ if star => (bounds.least, bounds.most),
        [single] => (value(single, bounds)?, value(single, bounds)?),
        [first, last] => (value(first, bounds)?, value(last, bounds)?),
        _ => return fail("too many hyphens".into()),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                last = bounds.most;
            }
            number(step)?
        }
        _ => return fail("too many slashes".into()),
    };
    let (least, most) = (bounds.least, bounds.most);
    if first < least {
        return fail(format!("beginning of range ({first}) below minimum ({least})"));
    }
    if last > most {
        return fail(format!("end of range ({last}) above maximum ({most})"));
    }
    if first > last {
        return fail(format!("beginning of range ({first}) beyond end of range ({last})"));
    }
    if step == 0 {
        return fail("step of range should be a positive number".into());
    }
    let values = (first..=last).step_by(step as usize).fold(0_u64, |set, value| set | (1 << value));
    Ok((values, star && step == 1))
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, CronError> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(at as u32 + bounds.least),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, CronError> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(CronError(format!("negative number ({number}) not allowed: {text}"))),
        // More than any bound is all that matters of a large one.
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => {
            Err(CronError(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")))
        }
    }
}

/// Whole seconds of a Go duration of hours, minutes and seconds: `1h30m`.
fn duration(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let amount: i64 = rest[..end].parse().ok()?;
        let unit = match rest.as_bytes()[end] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total = total.checked_add(amount.checked_mul(unit)?)?;
        rest = &rest[end + 1..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> Option<String> {
        let zone = TimeZone::get(zone).unwrap();
        CronSchedule::parse(schedule).unwrap().next(after.parse().unwrap(), &zone).map(|t| t.to_string())
    }

    #[test]
    fn the_next_time_follows_the_fields() {
        for (schedule, after, wanted) in [
            ("*/15 * * * *", "2026-03-01T10:00:00Z", "2026-03-01T10:15:00Z"),
            ("*/15 * * * *", "2026-03-01T10:59:59.5Z", "2026-03-01T11:00:00Z"),
            ("5/20 * * * *", "2026-03-01T10:26:00Z", "2026-03-01T10:45:00Z"),
            ("30 9-17/4 * * mon-fri", "2026-11-27T17:31:00Z", "2026-11-30T09:30:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 13 * 5", "2026-11-10T00:00:00Z", "2026-11-13T00:00:00Z"),
            ("0 0 14 * 5", "2026-11-13T00:00:00Z", "2026-11-14T00:00:00Z"),
            ("0 0 */2 * 5", "2026-11-13T00:00:00Z", "2026-11-15T00:00:00Z"),
            ("@hourly", "2026-11-13T23:00:00Z", "2026-11-14T00:00:00Z"),
            ("@yearly", "2026-11-13T23:00:00Z", "2027-01-01T00:00:00Z"),
            ("@every 1h30m", "2026-11-13T23:00:01.9Z", "2026-11-14T00:30:01Z"),
        ] {
            assert_eq!(next(schedule, after, "UTC").as_deref(), Some(wanted), "{schedule} after {after}");
        }
        assert_eq!(next("0 0 30 2 *", "2026-01-01T00:00:00Z", "UTC"), None);
    }

    #[test]
    fn zones_have_their_own_midnight_and_summer_time() {
        assert_eq!(next("@daily", "2026-06-01T12:00:00Z", "Europe/Berlin").as_deref(), Some("2026-06-01T22:00:00Z"));
        // 02:30 is left out on March 29 and comes twice on October 25.
        let spring = next("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin");
        assert_eq!(spring.as_deref(), Some("2026-03-30T00:30:00Z"));
        let autumn = next("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Berlin").unwrap();
        assert_eq!(autumn, "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", &autumn, "Europe/Berlin").as_deref(), Some("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_the_words_of_kubernetes() {
        for (schedule, wanted) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-2 * * * *", "beginning of range (5) beyond end of range (2): 5-2"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("99999999999 * * * *", "end of range (4294967295) above maximum (59): 99999999999"),
        ] {
            assert_eq!(CronSchedule::parse(schedule).unwrap_err().to_string(), wanted);
        }
    }
}
