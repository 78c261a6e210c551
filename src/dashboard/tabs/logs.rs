//! Logs of all services in one stream: filter, follow, find.

use super::{Tab, View};
use crate::{
    app::App,
    commands::{Meaning, Typed, Verb},
    text,
    theme::Theme,
    widgets,
};
use aksim_model::{ids::ServiceName, log::LogLine};
use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::Paragraph,
};
use std::collections::VecDeque;

/// How many lines are kept.
const KEPT: usize = 5000;
/// Columns of a service's name.
const NAME: usize = 12;

/// What the tab remembers.
#[derive(Debug, Default)]
pub(crate) struct LogsView {
    lines: VecDeque<LogLine>,
    /// Only lines of this service.
    pub service: Option<String>,
    /// What is searched for.
    pub search: String,
    /// How many fitting lines lie below the last one shown.
    below: usize,
    stopped: bool,
}

impl LogsView {
    /// Takes in new lines; what is looked at stays in place unless followed.
    pub fn push(&mut self, lines: Vec<LogLine>, filter: &str) {
        for mut line in lines {
            line.line = text::plain(&line.line);
            if self.stopped && self.fits(&line, &filter.to_lowercase()) {
                self.below += 1;
            }
            self.lines.push_back(line);
            if self.lines.len() > KEPT {
                self.lines.pop_front();
            }
        }
    }

    /// Whether new lines scroll into view.
    pub fn following(&self) -> bool {
        !self.stopped
    }

    /// Goes to the end and stays there.
    pub fn follow(&mut self) {
        (self.stopped, self.below) = (false, 0);
    }

    /// Follows, or stops to.
    pub fn follow_or_stop(&mut self) {
        match self.stopped {
            true => self.follow(),
            false => self.stopped = true,
        }
    }

    /// Scrolls down by lines; reaching the end follows again.
    pub fn step(&mut self, by: isize, filter: &str) {
        let count = self.shown(filter).len();
        self.below = self.below.saturating_add_signed(-by).min(count.saturating_sub(1));
        self.stopped = self.below > 0;
    }

    /// Goes to the next line with the searched text, newer or older; `false` when there is none.
    pub fn find(&mut self, forward: bool, filter: &str) -> bool {
        let needle = self.search.to_lowercase();
        let shown = self.shown(filter);
        if needle.is_empty() || shown.is_empty() {
            return false;
        }
        let here = shown.len() - 1 - self.below.min(shown.len() - 1);
        let hit = |index: &usize| shown[*index].line.to_lowercase().contains(&needle);
        let found = match forward {
            true => (here + 1..shown.len()).find(hit),
            // Following, the last line has not been looked at: it counts.
            false => (0..here + usize::from(!self.stopped)).rev().find(hit),
        };
        let below = found.map(|index| shown.len() - 1 - index);
        if let Some(below) = below {
            (self.below, self.stopped) = (below, true);
        }
        below.is_some()
    }

    /// The last lines of a service, oldest first.
    pub fn last_of(&self, service: &ServiceName, count: usize) -> Vec<&LogLine> {
        let mut lines: Vec<&LogLine> = self.lines.iter().rev().filter(|l| &l.service == service).take(count).collect();
        lines.reverse();
        lines
    }

    fn fits(&self, line: &LogLine, lower_filter: &str) -> bool {
        self.service.as_ref().is_none_or(|s| line.service.as_str() == s)
            && (lower_filter.is_empty()
                || line.line.to_lowercase().contains(lower_filter)
                || line.pod.contains(lower_filter))
    }

    fn shown(&self, filter: &str) -> Vec<&LogLine> {
        let filter = filter.to_lowercase();
        self.lines.iter().filter(|line| self.fits(line, &filter)).collect()
    }
}

/// The tab.
pub(crate) struct Logs;

impl View for Logs {
    fn title(&self) -> &'static str {
        "Logs"
    }

    fn verb(&self) -> &'static Verb {
        static VERB: Verb = Verb {
            name: "logs",
            aliases: &["log"],
            meaning: Meaning::Service(Typed::Logs),
            help: "logs, of one service or of all",
        };
        &VERB
    }

    fn hints(&self) -> &'static [(&'static str, &'static str)] {
        &[("f", "follow"), ("/", "filter"), ("^f", "find"), ("n N", "next"), ("esc", "all"), ("?", "help")]
    }

    fn render(&self, app: &App, area: Rect, frame: &mut Frame<'_>) {
        let filter = &app.state(Tab::Logs).filter;
        let shown = app.logs.shown(filter);
        let theme = &app.theme;
        let block = widgets::panel(theme, title(app, shown.len()));
        let inner = block.inner(area);
        frame.render_widget(block, area);
        if shown.is_empty() {
            let text = if app.logs.lines.is_empty() { "no lines yet" } else { "no line fits (esc shows all)" };
            return widgets::empty(theme, text, inner, frame);
        }
        let last = shown.len().saturating_sub(app.logs.below);
        let mut rows: VecDeque<Line<'_>> = VecDeque::new();
        // From the bottom up, until the area is full.
        for line in shown[..last.max(1)].iter().rev() {
            for row in rendered(app, line, filter, inner.width as usize).into_iter().rev() {
                rows.push_front(row);
            }
            if rows.len() >= inner.height as usize {
                break;
            }
        }
        let skipped = rows.len().saturating_sub(inner.height as usize);
        let rows: Vec<Line<'_>> = rows.into_iter().skip(skipped).collect();
        frame.render_widget(Paragraph::new(rows), inner);
    }

    fn select(&self, app: &mut App, by: isize) -> bool {
        app.with_logs(|logs, filter| logs.step(by, filter));
        true
    }

    fn triggers(&self, app: &App) -> Option<ServiceName> {
        app.logs.service.clone().map(ServiceName::new)
    }

    fn widen(&self, app: &mut App) {
        app.logs.search.clear();
        app.logs.service = None;
    }
}

fn title(app: &App, shown: usize) -> String {
    let whose = app.logs.service.as_deref().unwrap_or("all services");
    let state = if app.logs.following() { "following" } else { "stopped, f follows" };
    let dot = app.theme.symbols.dot;
    let find = match app.logs.search.as_str() {
        "" => String::new(),
        search => format!("{dot}find {search}"),
    };
    format!(" Logs{dot}{}{dot}{shown} lines{dot}{state}{find} ", text::plain(whose))
}

/// A log line in as many rows as it takes.
fn rendered<'a>(app: &'a App, line: &'a LogLine, filter: &str, columns: usize) -> Vec<Line<'a>> {
    let theme = &app.theme;
    let narrow = columns < 60;
    let name = if narrow { 7 } else { NAME };
    let index = app.world.services.get_index_of(&line.service).unwrap_or(0);
    let service = text::fit(&text::plain(line.service.as_str()), name, theme.symbols.ellipsis);
    let clock = if narrow { String::new() } else { line.at.strftime("%H:%M:%S ").to_string() };
    let rule = theme.symbols.rule;
    let indent = text::width(&clock) + name + text::width(rule);
    let mut rows = Vec::new();
    for (number, part) in widgets::wrap(&line.line, columns.saturating_sub(indent)).into_iter().enumerate() {
        let mut spans = match number {
            0 => vec![
                Span::styled(clock.clone(), theme.quiet()),
                Span::styled(format!("{service:<name$}"), theme.service(index)),
            ],
            _ => vec![Span::raw(" ".repeat(indent - text::width(rule)))],
        };
        spans.push(Span::styled(rule, theme.quiet()));
        spans.extend(highlighted(theme, part, [filter, &app.logs.search]));
        rows.push(Line::from(spans));
    }
    rows
}

/// `text` with every occurrence of the needles marked.
fn highlighted(theme: &Theme, text: String, needles: [&str; 2]) -> Vec<Span<'static>> {
    let lower = text.to_lowercase();
    // Lower case may be longer in bytes than what it came from; then offsets would not fit.
    let needles: Vec<String> = needles.iter().filter(|n| !n.is_empty()).map(|n| n.to_lowercase()).collect();
    if needles.is_empty() || lower.len() != text.len() {
        return vec![Span::raw(text)];
    }
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some((start, length)) = next_of(&lower, at, &needles) {
        let end = start + length;
        if !(text.is_char_boundary(start) && text.is_char_boundary(end)) {
            break;
        }
        spans.push(Span::styled(text[at..start].to_owned(), Style::new()));
        spans.push(Span::styled(text[start..end].to_owned(), theme.found()));
        at = end;
    }
    spans.push(Span::raw(text[at..].to_owned()));
    spans
}

fn next_of(text: &str, from: usize, needles: &[String]) -> Option<(usize, usize)> {
    let hits = needles.iter().filter_map(|needle| Some((from + text[from..].find(needle.as_str())?, needle.len())));
    hits.min()
}

#[cfg(test)]
mod unit {
    use super::*;
    use jiff::Timestamp;

    fn line(service: &str, text: &str) -> LogLine {
        LogLine { service: service.into(), pod: format!("{service}-1"), at: Timestamp::UNIX_EPOCH, line: text.into() }
    }

    fn view() -> LogsView {
        let mut view = LogsView::default();
        view.push((0..10).map(|n| line(if n % 2 == 0 { "web" } else { "api" }, &format!("line {n}"))).collect(), "");
        view
    }

    #[test]
    fn filters_by_service_and_text() {
        let mut view = view();
        view.service = Some("api".into());
        let texts = |v: &LogsView, f: &str| v.shown(f).iter().map(|l| l.line.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&view, ""), ["line 1", "line 3", "line 5", "line 7", "line 9"]);
        assert_eq!(texts(&view, "LINE 3"), ["line 3"]);
    }

    #[test]
    fn what_is_looked_at_stays_in_place() {
        let mut view = view();
        view.step(-4, "");
        assert_eq!((view.below, view.following()), (4, false));
        view.push(vec![line("web", "new")], "");
        assert_eq!(view.below, 5);
        view.push(vec![line("web", "hidden")], "line");
        assert_eq!(view.below, 5, "a line that the filter hides moves nothing");
        view.step(isize::MAX / 2, "");
        assert!(view.following());
        view.step(-(isize::MAX / 2), "");
        assert_eq!(view.below, 11);
    }

    #[test]
    fn finds_older_then_newer() {
        let mut view = view();
        view.search = "line".into();
        assert!(view.find(false, ""));
        assert_eq!(view.below, 0, "the last line counts while following");
        assert!(view.find(false, ""));
        assert_eq!(view.below, 1);
        assert!(view.find(true, ""));
        assert_eq!(view.below, 0);
        assert!(!view.find(true, ""));
        view.search = "LINE 2".into();
        assert!(view.find(false, ""));
        assert_eq!(view.below, 7);
    }

    #[test]
    fn keeps_a_bounded_number_of_clean_lines() {
        let mut view = LogsView::default();
        view.push((0..KEPT + 7).map(|n| line("web", &format!("\u{1b}[2J{n}"))).collect(), "");
        assert_eq!(view.lines.len(), KEPT);
        assert_eq!(view.lines[0].line, "7");
    }

    #[test]
    fn marks_what_is_searched() {
        let theme = Theme::new(true, true);
        let spans = highlighted(&theme, "An Error and an error".into(), ["", "error"]);
        let marked: Vec<_> = spans.iter().filter(|s| s.style == theme.found()).map(|s| s.content.as_ref()).collect();
        assert_eq!(marked, ["Error", "error"]);
        assert_eq!(highlighted(&theme, "İx".into(), ["x", ""]).len(), 1, "length changes in lower case");
    }
}
