//! `trigger`, `pr`, `schedules`.

use super::Reader;
use crate::{
    plan::{Schedule, Trigger},
    template::Lazy,
    yaml::Kind,
};

impl Reader<'_> {
    /// `trigger:` or `pr:`: `none`, a list of branches, or filters.
    pub(super) fn trigger(&mut self, value: &Lazy, of_pull_requests: bool) -> Trigger {
        let mut trigger = Trigger { auto_cancel: of_pull_requests, drafts: of_pull_requests, ..Trigger::default() };
        let Some(value) = self.loader.resolved(value) else { return trigger };
        match &value.node.kind {
            Kind::Scalar(text, _) if text == "none" => return Trigger { none: true, ..Trigger::default() },
            Kind::Scalar(text, _) if text.is_empty() => return trigger,
            Kind::Scalar(..) | Kind::Sequence(_) => {
                trigger.branches.include = self.texts(&value);
                return trigger;
            }
            Kind::Mapping(_) => {}
        }
        let Some(mut map) = self.loader.map(&value) else { return trigger };
        if of_pull_requests {
            trigger.auto_cancel = self.flag(&mut map, "autoCancel").unwrap_or(true);
            trigger.drafts = self.flag(&mut map, "drafts").unwrap_or(true);
        } else {
            trigger.batch = self.flag(&mut map, "batch").unwrap_or(false);
            trigger.tags = map.take("tags").map(|v| self.filter(&v)).unwrap_or_default();
            // `enabled: false` is how Azure writes `none` in an expanded pipeline.
            trigger.none = self.flag(&mut map, "enabled") == Some(false);
        }
        trigger.branches = map.take("branches").map(|v| self.filter(&v)).unwrap_or_default();
        trigger.paths = map.take("paths").map(|v| self.filter(&v)).unwrap_or_default();
        self.loader.finish(map);
        trigger
    }

    /// `schedules:`.
    pub(super) fn schedules(&mut self, value: &Lazy) -> Vec<Schedule> {
        let mut schedules = Vec::new();
        for item in self.loader.items(value) {
            let Some(mut map) = self.loader.map(&item) else { continue };
            self.note("schedules", &item.node.mark);
            let Some(cron) = map.take("cron") else {
                self.loader.error(&item.node.mark, "A schedule needs a 'cron'");
                continue;
            };
            let text = self.loader.text(&cron).unwrap_or_default();
            if !is_cron(&text) {
                let hint = "five fields: minute, hour, day of month, month, day of week";
                self.loader.error_hint(&cron.node.mark, format!("Improperly formed cron syntax: '{text}'."), hint);
            }
            schedules.push(Schedule {
                cron: text,
                display_name: self.some_text(&mut map, "displayName"),
                branches: map.take("branches").map(|v| self.filter(&v)).unwrap_or_default(),
                always: self.flag(&mut map, "always").unwrap_or(false),
                batch: self.flag(&mut map, "batch").unwrap_or(false),
            });
            self.loader.finish(map);
        }
        schedules
    }
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Five fields of numbers, names, ranges, lists and steps.
fn is_cron(text: &str) -> bool {
    let ranges: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];
    let fields: Vec<&str> = text.split_whitespace().collect();
    fields.len() == 5
        && fields.iter().zip(ranges).all(|(field, range)| field.split(',').all(|p| is_cron_part(p, range)))
}

fn is_cron_part(part: &str, (low, high, names): (u32, u32, &[&str])) -> bool {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if step.is_some_and(|step| !step.parse::<u32>().is_ok_and(|n| n > 0)) {
        return false;
    }
    let value = |text: &str| {
        let named = names.iter().position(|name| text.to_ascii_lowercase().starts_with(name));
        let number = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + low).or_else(|| text.parse().ok());
        number.filter(|n| (low..=high).contains(n))
    };
    match range.split_once('-') {
        _ if range == "*" => true,
        Some((from, to)) => matches!((value(from), value(to)), (Some(from), Some(to)) if from <= to),
        None => value(range).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_cron;

    #[test]
    fn cron_fields() {
        for good in ["0 3 * * Mon-Fri", "*/15 0,12 1-15 JAN *", "0 0 * * 0", "5 4 * * sunday"] {
            assert!(is_cron(good), "{good}");
        }
        for bad in ["0 3 * *", "60 * * * *", "* * * 13 *", "*/0 * * * *", "5-1 * * * *", "a * * * *", "* * * * * *"] {
            assert!(!is_cron(bad), "{bad}");
        }
    }
}
