//! What several tabs draw with.

use super::{
    app::{App, Popup},
    commands, keys,
    prompt::Purpose,
    tabs::Tab,
    text,
    theme::{Mood, Theme},
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Position, Rect},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph},
};

/// A box with a title.
pub fn panel<'a>(theme: &Theme, title: impl Into<Line<'a>>) -> Block<'a> {
    Block::new()
        .borders(Borders::ALL)
        .border_set(theme.symbols.border)
        .border_style(theme.quiet())
        .title(title.into().style(theme.title()))
}

/// Mark and word of a state.
pub fn state(theme: &Theme, mood: Mood, word: impl Into<String>) -> Vec<Span<'static>> {
    vec![Span::styled(theme.mark(mood), theme.mood(mood)), Span::raw(" "), Span::styled(word.into(), theme.mood(mood))]
}

/// The first line: environment, tabs, connection.
pub fn header(app: &App, area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    let name = format!(" {} ", text::plain(&app.environment));
    let mut spans = vec![Span::styled(" aksim", theme.title()), Span::styled(name, theme.key())];
    let narrow = area.width < 72;
    for tab in Tab::ALL {
        let label = match (narrow, tab == app.tab) {
            (true, false) => format!(" {}", tab.number()),
            _ => format!(" {} {} ", tab.number(), tab.title()),
        };
        let style = if tab == app.tab { theme.selected() } else { theme.quiet() };
        spans.push(Span::styled(label, style));
    }
    let right = match app.connected {
        true => Line::from(state(theme, overall(app), format!("#{} ", app.world.seq))),
        false => Line::from(state(theme, Mood::Bad, "stopped ")),
    };
    let [left, far] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(right.width() as u16)]).areas(area);
    frame.render_widget(Line::from(spans), left);
    frame.render_widget(right, far);
}

/// The worst of all components and services.
pub fn overall(app: &App) -> Mood {
    let components = app.world.components.values().map(|c| Mood::from(c.state));
    let services = app.world.services.values().map(|s| Mood::from(s.state));
    let all: Vec<Mood> = components.chain(services).collect();
    [Mood::Bad, Mood::Warn, Mood::Busy, Mood::Good].into_iter().find(|m| all.contains(m)).unwrap_or(Mood::Idle)
}

/// The last line: what is typed, the news, or what can be pressed.
pub fn footer(app: &App, area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    if let Some(prompt) = &app.prompt {
        let sign = prompt.purpose.sign();
        let mut line = vec![Span::styled(sign, theme.key()), Span::raw(prompt.text.as_str())];
        if prompt.purpose == Purpose::Command {
            let choices = commands::complete(&prompt.text, &app.service_names());
            line.push(Span::styled(format!("   {}", choices.join("  ")), theme.quiet()));
        }
        frame.render_widget(Line::from(line), area);
        let column = text::width(sign) + text::width(&prompt.text[..prompt.cursor]);
        frame.set_cursor_position(Position::new(area.x + (column as u16).min(area.width.saturating_sub(1)), area.y));
        return;
    }
    if let Some(notice) = app.notice() {
        let room = area.width.saturating_sub(1) as usize;
        let words = text::fit(&notice.text, room, theme.symbols.ellipsis);
        frame.render_widget(Line::styled(format!(" {words}"), theme.mood(notice.mood)), area);
        return;
    }
    let mut spans = Vec::new();
    if !app.filter().is_empty() {
        spans.push(Span::styled(format!(" /{}", app.filter()), theme.found()));
    }
    for (key, help) in app.tab.view().hints() {
        spans.push(Span::styled(format!(" {key}"), theme.key()));
        spans.push(Span::styled(format!(" {help} "), theme.quiet()));
    }
    frame.render_widget(Line::from(spans), area);
}

/// Where a popup goes: the middle, as large as it needs.
pub fn popup_area(popup: &Popup, body: Rect) -> Rect {
    let (wide, high) = match popup {
        Popup::Addresses { endpoints, .. } => {
            let longest = endpoints.iter().map(|e| text::width(&e.name).max(12) + text::width(&e.url)).max();
            (longest.unwrap_or(0) + 7, endpoints.len() + 2)
        }
        Popup::Confirm { question, .. } => (text::width(question) + 14, 3),
    };
    let width = (wide as u16).clamp(24, 200).min(body.width);
    let height = (high as u16).min(body.height);
    Rect { x: body.x + (body.width - width) / 2, y: body.y + (body.height - height) / 2, width, height }
}

/// Draws a popup.
pub fn popup(app: &App, popup: &Popup, area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    match popup {
        Popup::Addresses { title, endpoints } => {
            let lines: Vec<Line<'_>> = endpoints
                .iter()
                .map(|e| {
                    let name = format!(" {:<12} ", text::plain(&e.name));
                    Line::from(vec![Span::raw(name), Span::styled(text::plain(&e.url), theme.link())])
                })
                .collect();
            let block = panel(theme, format!(" {title} ")).title_bottom(Line::from(" esc ").right_aligned());
            frame.render_widget(Paragraph::new(lines).block(block), area);
        }
        Popup::Confirm { question, .. } => {
            let line = Line::from(vec![
                Span::raw(format!(" {question} ")),
                Span::styled("y", theme.key()),
                Span::raw("es "),
                Span::styled("n", theme.key()),
                Span::raw("o"),
            ]);
            frame.render_widget(Paragraph::new(line).block(panel(theme, "")), area);
        }
    }
}

/// What a tab without rows shows.
pub fn empty(theme: &Theme, text: &str, area: Rect, frame: &mut Frame<'_>) {
    let [_, middle, _] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(1), Constraint::Fill(2)]).areas(area);
    frame.render_widget(Line::styled(text, theme.quiet()).centered(), middle);
}

/// `text` in rows of at most `columns`, broken between characters as terminals do.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for line in text.split('\n') {
        let (mut row, mut used) = (String::new(), 0);
        for c in line.chars() {
            let takes = text::width(c.encode_utf8(&mut [0; 4]));
            if used + takes > columns.max(1) {
                rows.push(std::mem::take(&mut row));
                used = 0;
            }
            used += takes;
            row.push(c);
        }
        rows.push(row);
    }
    rows
}

/// Every key with what it does, as lines.
pub fn key_lines(theme: &Theme) -> Vec<Line<'static>> {
    let pair = |(key, help): (String, &'static str)| {
        Line::from(vec![Span::styled(format!(" {key:<13}"), theme.key()), Span::raw(help)])
    };
    keys::rows().map(pair).collect()
}
