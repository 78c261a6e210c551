//! The mirrored data flow as a live picture: who stands where, and what last passed.

use super::{Tab, View, verb};
use crate::{
    app::App,
    commands::Verb,
    text,
    theme::{Mood, Theme},
    widgets,
};
use aksim_model::{
    event::FlowRow,
    ids::{ComponentName, ServiceName},
    world::{FlowStatus, World},
};
use jiff::Timestamp;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

/// The tab.
pub(crate) struct Flow;

/// A station of the picture: a row of the data flow and what stands for it here.
struct Station {
    row: FlowRow,
    title: &'static str,
    /// Components that serve it; the first that runs tells the address.
    components: &'static [&'static str],
    /// A service of the project that serves it.
    service: Option<&'static str>,
    /// Word at its arrow.
    passes: &'static str,
    /// What is said while nothing serves it.
    absent: &'static str,
}

const LATER: &str = "not in this release";

/// The eight rows, in order.
const STATIONS: [Station; 8] = [
    station(FlowRow::Commit, "Git host", &["git"], "push", LATER),
    station(FlowRow::Trigger, "Pipelines", &["pipelines"], "webhook", LATER),
    station(FlowRow::Package, "Registry", &["registry"], "pull", "not running"),
    station(FlowRow::Deploy, "Cluster", &["kubernetes", "node", "controllers"], "deploy", "not running"),
    station(FlowRow::Reach, "Users", &["ingress"], "requests", "not running"),
    station(FlowRow::Secure, "Identity", &["identity"], "tokens", "not running"),
    station(FlowRow::Store, "Database", &["database"], "queries", "none in this project"),
    Station {
        service: Some("admin"),
        ..station(FlowRow::Administer, "Admin portal", &["portal"], "edits", "none in this project")
    },
];

const fn station(
    row: FlowRow,
    title: &'static str,
    components: &'static [&'static str],
    passes: &'static str,
    absent: &'static str,
) -> Station {
    Station { row, title, components, service: None, passes, absent }
}

/// What is known of a station.
struct Facts<'w> {
    mood: Mood,
    word: String,
    since: Option<Timestamp>,
    url: Option<&'w str>,
    message: &'w str,
    last: Option<&'w FlowStatus>,
}

impl Station {
    fn facts<'w>(&self, world: &'w World) -> Facts<'w> {
        let last = world.flow.get(&self.row);
        let parts = self.components.iter().filter_map(|name| world.components.get(&ComponentName::from(*name)));
        let mut found = parts.map(|c| (Mood::from(c.state), kebab(&c.state), c.since, &c.endpoints, &c.message));
        let service = self.service.and_then(|name| world.services.get(&ServiceName::from(name)));
        let served = service.map(|s| (Mood::from(s.state), kebab(&s.state), s.since, &s.endpoints, &s.message));
        let first = found.next().or(served);
        let Some((mut mood, mut word, mut since, endpoints, mut message)) = first else {
            let mood = last.map_or(Mood::Idle, |l| if l.ok { Mood::Good } else { Mood::Bad });
            return Facts { mood, word: self.absent.into(), since: None, url: None, message: "", last };
        };
        // The worst part is the one worth telling about.
        for (other, its_word, its_since, _, its_message) in found {
            if severity(other) > severity(mood) {
                (mood, word, since, message) = (other, its_word, its_since, its_message);
            }
        }
        let url = match self.row {
            // Where people go: the first website that is not the administrators'.
            FlowRow::Reach => {
                let admin = STATIONS[7].service;
                let open = world.services.iter().filter(|(name, _)| Some(name.as_str()) != admin);
                open.flat_map(|(_, s)| &s.endpoints).next()
            }
            _ => None,
        };
        let url = url.or(endpoints.first()).map(|e| e.url.as_str());
        Facts { mood, word, since: Some(since), url, message, last }
    }
}

fn severity(mood: Mood) -> u8 {
    match mood {
        Mood::Idle => 0,
        Mood::Good => 1,
        Mood::Busy => 2,
        Mood::Warn => 3,
        Mood::Bad => 4,
    }
}

/// The serialised name of a state, which is also its word for people.
fn kebab(state: &impl serde::Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word.replace('-', " "),
        _ => String::new(),
    }
}

impl View for Flow {
    fn title(&self) -> &'static str {
        "Flow"
    }

    fn verb(&self) -> &'static Verb {
        static VERB: Verb = verb("flow", &[], Tab::Flow, "the data flow");
        &VERB
    }

    fn hints(&self) -> &'static [(&'static str, &'static str)] {
        &[("2", "services"), ("3", "logs"), ("o", "addresses"), (":", "command"), ("?", "help"), ("q", "quit")]
    }

    fn render(&self, app: &App, area: Rect, frame: &mut Frame<'_>) {
        if area.width < 72 || area.height < 19 {
            return list(app, area, frame);
        }
        let (small, large) = if area.height >= 32 { (7, 8) } else { (5, 5) };
        let [top, above, cluster, below, bottom, news] = Layout::vertical([
            Constraint::Length(small),
            Constraint::Length(1),
            Constraint::Length(large),
            Constraint::Length(1),
            Constraint::Length(small),
            Constraint::Fill(1),
        ])
        .areas(area);
        upstream(app, top, frame);
        let [developer, _, _, registry] = columns(top);
        arrow_down(app, developer, above, "inner loop", app.world.journeys.last().map(|j| j.started), frame);
        let pulled = app.world.flow.get(&FlowRow::Deploy).map(|f| f.at);
        arrow_down(app, registry, above, STATIONS[2].passes, pulled, frame);
        cluster_box(app, cluster, frame);
        for (station, place) in STATIONS[4..].iter().zip(columns(bottom)) {
            arrow_up(app, station, place, below, frame);
            station_box(app, station, place, frame);
        }
        news_box(app, news, frame);
    }
}

/// Four boxes with room for arrows between.
fn columns(area: Rect) -> [Rect; 4] {
    let between = if area.width >= 100 { 4 } else { 2 };
    Layout::horizontal([Constraint::Fill(1); 4]).spacing(between).areas(area)
}

fn upstream(app: &App, area: Rect, frame: &mut Frame<'_>) {
    let boxes = columns(area);
    developer_box(app, boxes[0], frame);
    for (index, station) in STATIONS[..3].iter().enumerate() {
        let (from, to) = (boxes[index], boxes[index + 1]);
        station_box(app, station, to, frame);
        let symbols = &app.theme.symbols;
        let shaft = symbols.lines[0];
        let at = Rect { x: from.right(), y: area.y + area.height / 2, width: to.x - from.right(), height: 1 };
        let style = pulse(app, app.world.flow.get(&station.row).map(|f| f.at));
        let arrow = shaft.repeat(at.width.saturating_sub(1) as usize) + symbols.arrows[0];
        frame.render_widget(Line::styled(arrow, style), at);
    }
}

/// Bright while something has just passed.
fn pulse(app: &App, at: Option<Timestamp>) -> ratatui::style::Style {
    match at {
        Some(at) if app.now.as_second() - at.as_second() < 3 => app.theme.mood(Mood::Busy),
        _ => app.theme.quiet(),
    }
}

fn arrow_down(app: &App, column: Rect, line: Rect, word: &str, at: Option<Timestamp>, frame: &mut Frame<'_>) {
    let place = Rect { x: column.x + 3, y: line.y, width: column.width.saturating_sub(3), height: 1 };
    frame.render_widget(Line::styled(format!("{} {word}", app.theme.symbols.arrows[3]), pulse(app, at)), place);
}

fn arrow_up(app: &App, station: &Station, column: Rect, line: Rect, frame: &mut Frame<'_>) {
    // Services ask issuer and database; people ask services.
    let asked = matches!(station.row, FlowRow::Secure | FlowRow::Store);
    let head = app.theme.symbols.arrows[if asked { 3 } else { 2 }];
    let place = Rect { x: column.x + 3, y: line.y, width: column.width.saturating_sub(3), height: 1 };
    let at = app.world.flow.get(&station.row).map(|f| f.at);
    frame.render_widget(Line::styled(format!("{head} {}", station.passes), pulse(app, at)), place);
}

fn developer_box(app: &App, area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    let block = widgets::panel(theme, " Developer ");
    let inner = block.inner(area);
    let columns = inner.width as usize;
    let lines = match app.world.journeys.last() {
        Some(journey) => {
            let when = format!("{} ago", text::age(journey.started, app.now)).replace("now ago", "now");
            let mood = super::journeys::mood(journey);
            let mut lines = vec![Line::from(widgets::state(theme, mood, format!("saved {when}")))];
            lines.extend(quoted(theme, &journey.cause, columns, inner.height.saturating_sub(1)));
            lines
        }
        None => vec![Line::from(widgets::state(theme, Mood::Idle, "nothing saved yet"))],
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn station_box(app: &App, station: &Station, area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    let facts = station.facts(&app.world);
    let block = widgets::panel(theme, format!(" {} {} ", station.row.number(), station.title));
    let inner = block.inner(area);
    let mut lines = headline(app, &facts, inner.width as usize);
    lines.extend(last_event(app, &facts, inner.width as usize, inner.height.saturating_sub(lines.len() as u16)));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// State with its age, and the address.
fn headline(app: &App, facts: &Facts<'_>, columns: usize) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let word = text::fit(&facts.word, columns.saturating_sub(2), theme.symbols.ellipsis);
    let mut state = widgets::state(theme, facts.mood, word);
    if let Some(since) = facts.since {
        state.push(Span::styled(format!(" {}", text::age(since, app.now)), theme.quiet()));
    }
    let mut lines = vec![Line::from(state)];
    if let Some(url) = facts.url {
        let url = url.trim_start_matches("https://").trim_end_matches('/');
        lines.push(Line::styled(text::fit(&text::plain(url), columns, theme.symbols.ellipsis), theme.link()));
    }
    lines
}

/// What last passed, or why nothing does.
fn last_event(app: &App, facts: &Facts<'_>, columns: usize, rows: u16) -> Vec<Line<'static>> {
    let theme = &app.theme;
    match (facts.mood, facts.last) {
        (Mood::Bad | Mood::Warn, _) if !facts.message.is_empty() => quoted(theme, facts.message, columns, rows),
        (_, Some(last)) => {
            let age = text::age(last.at, app.now);
            let sign = if last.ok { "" } else { "failed: " };
            quoted(theme, &format!("{age} {sign}{}", last.message), columns, rows)
        }
        _ => quoted(theme, facts.message, columns, rows),
    }
}

fn quoted(theme: &Theme, message: &str, columns: usize, rows: u16) -> Vec<Line<'static>> {
    let message = text::plain(message).replace('\n', " ");
    if message.is_empty() || rows == 0 {
        return Vec::new();
    }
    let room = columns * rows as usize;
    let cut = text::fit(&message, room, theme.symbols.ellipsis);
    let wrapped = widgets::wrap(&cut, columns);
    wrapped.into_iter().take(rows as usize).map(|row| Line::styled(row, theme.quiet())).collect()
}

fn cluster_box(app: &App, area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    let station = &STATIONS[3];
    let facts = station.facts(&app.world);
    let block = widgets::panel(theme, format!(" {} {} ", station.row.number(), station.title));
    let inner = block.inner(area);
    let columns = inner.width as usize;
    let mut head = headline(app, &facts, columns);
    if head.len() > 1 {
        // State and address share a line: services need the room.
        let address = head.remove(1);
        head[0].push_span(Span::raw("  "));
        head[0].spans.extend(address.spans.into_iter().map(|s| s.style(theme.link())));
    }
    let mut lines = head;
    lines.extend(service_chips(app, columns));
    let rest = inner.height.saturating_sub(lines.len() as u16);
    lines.extend(last_event(app, &facts, columns, rest));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Every service with its state, as many on a line as fit.
fn service_chips(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let mut lines = vec![Line::default()];
    for (name, status) in &app.world.services {
        let mood = Mood::from(status.state);
        let version = status.serving.as_deref().map(text::short_version).unwrap_or("-");
        let mut chip = widgets::state(theme, mood, text::plain(name.as_str()));
        let shown = if mood == Mood::Good { text::plain(version) } else { kebab(&status.state) };
        chip.push(Span::styled(format!(" {shown}   "), theme.quiet()));
        let chip = Line::from(chip);
        let used = lines.last().map_or(0, Line::width);
        if used > 0 && used + chip.width() > columns + 3 {
            lines.push(Line::default());
        }
        if let Some(line) = lines.last_mut() {
            line.spans.extend(chip.spans);
        }
    }
    lines
}

fn news_box(app: &App, area: Rect, frame: &mut Frame<'_>) {
    if area.height < 3 {
        return;
    }
    let theme = &app.theme;
    let warnings = app.world.warnings.iter().map(|w| {
        let hint = w.hint.as_ref().map(|h| format!(" (hint: {h})")).unwrap_or_default();
        (w.at, Mood::Warn, format!("{}: {}{hint}", w.subject, w.message))
    });
    let passed = app.world.flow.iter().map(|(row, f)| {
        let mood = if f.ok { Mood::Good } else { Mood::Bad };
        (f.at, mood, format!("{} {}", STATIONS[row.number() - 1].title, f.message))
    });
    let failed = app.world.services.iter().filter(|(_, s)| Mood::from(s.state) == Mood::Bad);
    let failed = failed.map(|(name, s)| (s.since, Mood::Bad, format!("{name} {}", s.message)));
    let mut news: Vec<_> = warnings.chain(passed).chain(failed).collect();
    news.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
    let columns = area.width.saturating_sub(10) as usize;
    let lines: Vec<Line<'_>> = news
        .into_iter()
        .take(area.height as usize - 2)
        .map(|(at, mood, words)| {
            let words = text::plain(&words).replace('\n', " ");
            Line::from(vec![
                Span::styled(format!("{:>4} ", text::age(at, app.now)), theme.quiet()),
                Span::styled(theme.mark(mood), theme.mood(mood)),
                Span::raw(format!(" {}", text::fit(&words, columns, theme.symbols.ellipsis))),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(widgets::panel(theme, " News ")), area);
}

/// The same facts, a row a line, where there is no room for a picture.
fn list(app: &App, area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    let columns = area.width as usize;
    let lines: Vec<Line<'_>> = STATIONS
        .iter()
        .map(|station| {
            let facts = station.facts(&app.world);
            let mut spans = vec![Span::raw(format!("{} {:<13}", station.row.number(), station.title))];
            spans.extend(widgets::state(theme, facts.mood, facts.word));
            if let Some(last) = facts.last {
                let used = spans.iter().map(Span::width).sum::<usize>();
                let words = format!(" {} {}", text::age(last.at, app.now), text::plain(&last.message));
                let room = columns.saturating_sub(used);
                spans.push(Span::styled(text::fit(&words, room, theme.symbols.ellipsis), theme.quiet()));
            }
            Line::from(spans)
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}
