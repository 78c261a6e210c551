//! Rows of measurements and their table.

use std::{fmt, time::Duration};

/// What a row is held to.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// Median below this time.
    Below(Duration),
    /// Median below this many mebibytes.
    BelowMebibytes(f64),
    /// Median of at least this many a second.
    AtLeast(f64),
    /// Nothing: the row tells of another.
    None,
    /// Words, for what is not measured.
    Text(&'static str),
}

/// All rows, printed as they come on stderr, and as a table in the end.
pub struct Report {
    words: Vec<String>,
    rows: Vec<[String; 5]>,
}

impl Report {
    /// A report of the rows with one of `words` in their name; of all when there are no words.
    pub fn new(words: Vec<String>) -> Self {
        Self { words, rows: Vec::new() }
    }

    /// Whether a row of this name is asked for.
    pub fn wants(&self, what: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| what.contains(word.as_str()))
    }

    /// A row of times.
    pub fn times(&mut self, what: &str, budget: Budget, peer: &str, times: &[Duration]) {
        let values = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        self.row(what, budget, peer, values, time);
    }

    /// A row of rates, a second.
    pub fn rates(&mut self, what: &str, budget: Budget, peer: &str, rates: &[f64]) {
        self.row(what, budget, peer, rates.to_vec(), |rate| format!("{rate:.0}/s"));
    }

    /// A row of sizes in mebibytes.
    pub fn sizes(&mut self, what: &str, budget: Budget, peer: &str, sizes: &[f64]) {
        self.row(what, budget, peer, sizes.to_vec(), |size| format!("{size:.1} MB"));
    }

    /// A row that cannot be measured, and why.
    pub fn not_available(&mut self, what: &str, budget: Budget, peer: &str, why: &str) {
        if self.wants(what) {
            self.push([what.into(), budget.to_string(), "not available".into(), peer.into(), why.into()]);
        }
    }

    fn row(&mut self, what: &str, budget: Budget, peer: &str, mut values: Vec<f64>, shown: fn(f64) -> String) {
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else {
            return self.not_available(what, budget, peer, "nothing was measured");
        };
        let median = values[values.len() / 2];
        let measured = format!("{} (n = {}, {} to {})", shown(median), values.len(), shown(*least), shown(*most));
        self.push([what.into(), budget.to_string(), measured, peer.into(), budget.verdict(median)]);
    }

    fn push(&mut self, row: [String; 5]) {
        eprintln!("{}: {}: {}", row[0], row[2], row[4]);
        self.rows.push(row);
    }
}

impl Budget {
    /// `median` is in the unit of the row: milliseconds, mebibytes, a second.
    fn verdict(self, median: f64) -> String {
        let (met, ratio) = match self {
            Self::Below(limit) => (median < limit.as_secs_f64() * 1e3, median / (limit.as_secs_f64() * 1e3)),
            Self::BelowMebibytes(limit) => (median < limit, median / limit),
            Self::AtLeast(limit) => (median >= limit, median / limit),
            Self::None | Self::Text(_) => return "no budget".into(),
        };
        if met { "met".into() } else { format!("missed: {ratio:.2} of the budget") }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(limit) => write!(f, "< {}", time(limit.as_secs_f64() * 1e3)),
            Self::BelowMebibytes(limit) => write!(f, "< {limit:.0} MB"),
            Self::AtLeast(limit) => write!(f, "≥ {limit:.0}/s"),
            Self::None => f.write_str("none"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn time(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | budget | measured: median | peer, from the design, not measured here | verdict |")?;
        writeln!(f, "| - | - | - | - | - |")?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<&str> = load.split_whitespace().take(3).collect();
        writeln!(f, "\n{cores} cores; load average at the end {} (1, 5, 15 minutes)", load.join(" "))
    }
}
