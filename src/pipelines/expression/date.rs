//! Dates as .NET's custom format writes them: run numbers (`$(Date:yyyyMMdd)`) and `format('{0:yyyy}', …)`.

use jiff::civil::DateTime;
use std::fmt::Write;

/// Writes a time by a .NET custom date format. Letters that are no specifier stand for themselves, and so does
/// what is in quotes or after a backslash.
pub fn format_date(format: &str, time: DateTime) -> String {
    let characters: Vec<char> = format.chars().collect();
    let mut result = String::new();
    let mut at = 0;
    while at < characters.len() {
        let letter = characters[at];
        let count = characters[at..].iter().take_while(|c| **c == letter).count();
        at += count;
        match letter {
            '\'' | '"' => {
                at = at - count + 1;
                while let Some(&c) = characters.get(at) {
                    at += 1;
                    if c == letter {
                        break;
                    }
                    result.push(c);
                }
            }
            '\\' => {
                at = at - count + 1;
                result.extend(characters.get(at));
                at += 1;
            }
            _ => result.push_str(&part(letter, count, time)),
        }
    }
    result
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn part(letter: char, count: usize, time: DateTime) -> String {
    let number = |value: i64| {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{value:0width$}", width = count.min(2));
        text
    };
    let month = MONTHS[usize::from(time.month().unsigned_abs()) - 1];
    let day = format!("{:?}", time.weekday());
    match (letter, count) {
        ('y', 1 | 2) => format!("{:0width$}", time.year() % 100, width = count),
        ('y', _) => format!("{:0width$}", time.year(), width = count.min(9)),
        ('M', 1 | 2) => number(time.month().into()),
        ('M', 3) => month[..3].to_owned(),
        ('M', _) => month.to_owned(),
        ('d', 1 | 2) => number(time.day().into()),
        ('d', 3) => day[..3].to_owned(),
        ('d', _) => day,
        ('H', _) => number(time.hour().into()),
        ('h', _) => number(i64::from((time.hour() + 11) % 12 + 1)),
        ('m', _) => number(time.minute().into()),
        ('s', _) => number(time.second().into()),
        ('f', _) => format!("{:09}", time.subsec_nanosecond())[..count.min(7)].to_owned(),
        ('t', 1) => if time.hour() < 12 { "A" } else { "P" }.to_owned(),
        ('t', _) => if time.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        _ => std::iter::repeat_n(letter, count).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_formats() {
        let time = jiff::civil::datetime(2026, 3, 7, 15, 4, 9, 120_000_000);
        assert_eq!(format_date("yyyyMMdd", time), "20260307");
        assert_eq!(format_date("yy.M.d-HH:mm:ss.ff", time), "26.3.7-15:04:09.12");
        assert_eq!(format_date("ddd dd MMM, h tt 'day' \\d", time), "Sat 07 Mar, 3 PM day d");
        assert_eq!(format_date("", time), "");
        assert_eq!(format_date("'open", time), "open");
    }
}
