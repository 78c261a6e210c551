//! Services: a table, and everything known of the selected one.

use super::{Tab, View, moved, verb};
use crate::{app::App, commands::Verb, text, theme::Mood, widgets};
use aksim_model::{ids::ServiceName, journey::Journey, world::ServiceStatus};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, TableState},
};

/// Log lines that the details show.
const LAST_LINES: usize = 6;

/// The tab.
pub(crate) struct Services;

impl View for Services {
    fn title(&self) -> &'static str {
        "Services"
    }

    fn verb(&self) -> &'static Verb {
        static VERB: Verb = verb("services", &["svc", "service"], Tab::Services, "services");
        &VERB
    }

    fn hints(&self) -> &'static [(&'static str, &'static str)] {
        &[("enter", "details"), ("t", "trigger"), ("l", "logs"), ("o", "address"), ("/", "filter"), ("?", "help")]
    }

    fn render(&self, app: &App, area: Rect, frame: &mut Frame<'_>) {
        let Some(selected) = selected(app) else {
            let text = match app.filter() {
                "" => "no services yet",
                _ => "no service by that name (esc clears the filter)",
            };
            return widgets::empty(&app.theme, text, area, frame);
        };
        if app.details {
            return details(app, selected, area, frame);
        }
        if area.height < 14 {
            return table(app, area, frame);
        }
        let rows = shown(app).len() as u16 + 3;
        let [list, below] =
            Layout::vertical([Constraint::Length(rows.clamp(5, area.height / 2)), Constraint::Fill(1)]).areas(area);
        table(app, list, frame);
        details(app, selected, below, frame);
    }

    fn scrollable_lines(&self, app: &App) -> usize {
        match (app.details, selected(app)) {
            (true, Some(service)) => facts(app, service, 80).len(),
            _ => 0,
        }
    }

    fn select(&self, app: &mut App, by: isize) -> bool {
        let row = moved(app.state(Tab::Services).row, by, shown(app).len());
        app.state_mut(Tab::Services).row = row;
        true
    }

    fn has_details(&self, app: &App) -> bool {
        selected(app).is_some()
    }

    fn selected_service(&self, app: &App) -> Option<ServiceName> {
        selected(app).cloned()
    }
}

/// Services that the filter lets through.
fn shown(app: &App) -> Vec<&ServiceName> {
    let filter = app.state(Tab::Services).filter.to_lowercase();
    app.world.services.keys().filter(|name| name.as_str().contains(&filter)).collect()
}

/// The selected service.
fn selected(app: &App) -> Option<&ServiceName> {
    let shown = shown(app);
    shown.get(app.state(Tab::Services).row.min(shown.len().saturating_sub(1))).copied()
}

fn table(app: &App, area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    let wide = area.width >= 72;
    let rows = shown(app).into_iter().filter_map(|name| {
        let status = app.world.services.get(name)?;
        let mut cells = vec![
            Cell::from(text::plain(name.as_str())),
            Cell::from(Line::from(widgets::state(theme, Mood::from(status.state), word(status)))),
            Cell::from(Span::styled(text::age(status.since, app.now), theme.quiet())),
        ];
        if wide {
            cells.push(Cell::from(version(status.serving.as_deref())));
            let url = status.endpoints.first().map_or(String::new(), |e| text::plain(&e.url));
            cells.push(Cell::from(Span::styled(url, theme.link())));
        }
        Some(Row::new(cells))
    });
    let mut widths = vec![Constraint::Fill(2), Constraint::Length(13), Constraint::Length(4)];
    let mut titles = vec!["SERVICE", "STATE", "AGE"];
    if wide {
        widths.extend([Constraint::Length(14), Constraint::Fill(4)]);
        titles.extend(["SERVING", "ADDRESS"]);
    }
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(theme.quiet()))
        .row_highlight_style(theme.selected())
        .highlight_symbol(theme.symbols.cursor)
        .block(widgets::panel(theme, " Services "));
    let mut state = TableState::new().with_selected(Some(app.state(Tab::Services).row));
    frame.render_stateful_widget(table, area, &mut state);
}

fn word(status: &ServiceStatus) -> String {
    format!("{:?}", status.state).replace("RollingOut", "rolling out").to_lowercase()
}

fn version(version: Option<&str>) -> String {
    version.map_or_else(|| "-".to_owned(), |v| text::plain(text::short_version(v)))
}

fn details(app: &App, service: &ServiceName, area: Rect, frame: &mut Frame<'_>) {
    let block = widgets::panel(&app.theme, format!(" {} ", text::plain(service.as_str())));
    let columns = block.inner(area).width as usize;
    let scroll = if app.details { app.scroll as u16 } else { 0 };
    let lines = facts(app, service, columns);
    frame.render_widget(Paragraph::new(lines).scroll((scroll, 0)).block(block), area);
}

/// Everything known of a service, a line each.
fn facts(app: &App, service: &ServiceName, columns: usize) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let Some(status) = app.world.services.get(service) else { return Vec::new() };
    let label = |name: &str| Span::styled(format!("{name:<10}"), theme.quiet());
    let mood = Mood::from(status.state);
    let mut state = vec![label("state")];
    state.extend(widgets::state(theme, mood, word(status)));
    state.push(Span::styled(format!(" for {}", text::age(status.since, app.now)), theme.quiet()));
    let mut lines =
        vec![Line::from(state), Line::from(vec![label("serving"), Span::raw(version(status.serving.as_deref()))])];
    if status.version != status.serving {
        lines.push(Line::from(vec![label("next"), Span::raw(version(status.version.as_deref()))]));
    }
    for endpoint in &status.endpoints {
        lines.push(Line::from(vec![label("address"), Span::styled(text::plain(&endpoint.url), theme.link())]));
    }
    if let Some(journey) = app.world.journeys.iter().rev().find(|j| &j.service == service) {
        lines.push(Line::from(vec![label("change"), Span::raw(change(app, journey))]));
    }
    if !status.message.is_empty() {
        let title = if mood == Mood::Bad { "cause" } else { "note" };
        let style = if mood == Mood::Bad { theme.mood(Mood::Bad) } else { theme.quiet() };
        lines.push(Line::styled(title, style));
        let rows = widgets::wrap(&text::plain(&status.message), columns);
        lines.extend(rows.into_iter().map(Line::raw));
    }
    let logged = app.logs.last_of(service, LAST_LINES);
    if !logged.is_empty() {
        lines.push(Line::styled("last lines", theme.quiet()));
    }
    for line in logged {
        let words = text::fit(&line.line, columns.saturating_sub(9), theme.symbols.ellipsis);
        let clock = Span::styled(line.at.strftime("%H:%M:%S ").to_string(), theme.quiet());
        lines.push(Line::from(vec![clock, Span::raw(words)]));
    }
    lines
}

fn change(app: &App, journey: &Journey) -> String {
    let dot = app.theme.symbols.dot;
    let age = text::age(journey.started, app.now);
    let took = text::duration(journey.total_ms());
    format!("{}{dot}{}{dot}{took}{dot}{age}", text::plain(&journey.cause), super::journeys::outcome(journey))
}
