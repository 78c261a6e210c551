//! The only printer of results: data on stdout, in the form that was asked for.

use super::failure::Failure;
use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Form of data on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names alone.
    Name,
}

/// A table for people.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the header are dropped, line ends become spaces.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().take(self.header.len()).map(|c| c.replace(['\n', '\r'], " ")).collect());
    }

    /// Columns as wide as their widest cell, three spaces apart, as kubectl prints them.
    pub fn render(&self) -> String {
        let columns = self.header.len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
            cells.chain([self.header[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |cells: Vec<&str>| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            padded.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
        };
        let mut text = line(self.header.clone());
        for row in &self.rows {
            text.push_str(&line(row.iter().map(String::as_str).collect()));
        }
        text
    }
}

/// Prints text as it is; a closed pipe (`| head`) is not an error.
///
/// # Errors
/// Any other error of writing.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints data: JSON or YAML of `data`, or what `table` makes of it for people.
///
/// # Errors
/// Any error of writing.
pub fn data<T: Serialize>(
    format: Format,
    data: &T,
    table: impl FnOnce(bool) -> Table,
    names: impl FnOnce() -> Vec<String>,
) -> Result<(), Failure> {
    match format {
        Format::Json => text(&(serde_json::to_string_pretty(data).map_err(Failure::other)? + "\n")),
        Format::Yaml => text(&serde_saphyr::to_string(data).map_err(Failure::other)?),
        Format::Name => text(&names().into_iter().map(|n| n + "\n").collect::<String>()),
        Format::Table => text(&table(false).render()),
        Format::Wide => text(&table(true).render()),
    }
}

/// Whether a person looks at stdout and can be shown colours and a dashboard.
pub fn interactive() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Whether colours may be used on stderr (`NO_COLOR`, <https://no-color.org>).
pub fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["catalog".into(), "ready".into()]);
        table.row(["web".into(), "a\nb".into()]);
        assert_eq!(table.render(), "NAME      STATE\ncatalog   ready\nweb       a b\n");
    }
}
