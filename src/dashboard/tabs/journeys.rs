//! Journeys: every change from its cause to the first request it serves, with time a hop.

use super::{Tab, View, moved, verb};
use crate::{app::App, commands::Verb, text, theme::Mood, widgets};
use aksim_model::{
    ids::ServiceName,
    journey::{Journey, JourneyOutcome},
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, TableState},
};

/// The tab.
pub(crate) struct Journeys;

/// Columns of a waterfall besides its bars: name, time.
const NAME: usize = 10;
const TIME: usize = 9;

impl View for Journeys {
    fn title(&self) -> &'static str {
        "Journeys"
    }

    fn verb(&self) -> &'static Verb {
        static VERB: Verb = verb("journeys", &["journey"], Tab::Journeys, "journeys of changes");
        &VERB
    }

    fn hints(&self) -> &'static [(&'static str, &'static str)] {
        &[("j k", "select"), ("enter", "details"), ("t", "trigger again"), ("/", "filter"), ("?", "help")]
    }

    fn render(&self, app: &App, area: Rect, frame: &mut Frame<'_>) {
        let shown = shown(app);
        let Some(selected) = shown.get(selected(app)) else {
            return widgets::empty(&app.theme, "no journeys yet: save a file", area, frame);
        };
        if app.details {
            return details(app, selected, area, frame);
        }
        if area.height < 14 {
            return table(app, &shown, area, frame);
        }
        let high = waterfall(app, selected, 60).len() as u16 + 2;
        let [list, below] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(high.min(area.height - 6))]).areas(area);
        table(app, &shown, list, frame);
        details(app, selected, below, frame);
    }

    fn scrollable_lines(&self, app: &App) -> usize {
        match (app.details, shown(app).get(selected(app))) {
            (true, Some(journey)) => waterfall(app, journey, 60).len(),
            _ => 0,
        }
    }

    fn select(&self, app: &mut App, by: isize) -> bool {
        let index = moved(selected(app), by, shown(app).len());
        // The newest stays selected while newer ones come.
        let key = shown(app).get(index).filter(|_| index > 0).map(|journey| journey.id.to_string());
        app.state_mut(Tab::Journeys).key = key;
        true
    }

    fn has_details(&self, app: &App) -> bool {
        !shown(app).is_empty()
    }

    fn triggers(&self, app: &App) -> Option<ServiceName> {
        shown(app).get(selected(app)).map(|journey| journey.service.clone())
    }
}

/// Journeys that the filter lets through, newest first.
pub(crate) fn shown(app: &App) -> Vec<&Journey> {
    let filter = app.state(Tab::Journeys).filter.to_lowercase();
    let fits = |j: &&Journey| j.service.as_str().contains(&filter) || j.cause.to_lowercase().contains(&filter);
    app.world.journeys.iter().rev().filter(fits).collect()
}

/// Index of the selected journey among those shown.
pub(crate) fn selected(app: &App) -> usize {
    let key = app.state(Tab::Journeys).key.as_deref();
    key.and_then(|id| shown(app).iter().position(|j| j.id.as_str() == id)).unwrap_or(0)
}

/// What the end of a journey, or its being under way, means.
pub fn mood(journey: &Journey) -> Mood {
    match journey.outcome {
        None => Mood::Busy,
        Some(JourneyOutcome::Served) => Mood::Good,
        Some(JourneyOutcome::Failed(_)) => Mood::Bad,
        Some(JourneyOutcome::Superseded | JourneyOutcome::Completed) => Mood::Idle,
    }
}

/// How a journey ended, in a word.
pub fn outcome(journey: &Journey) -> String {
    match &journey.outcome {
        None => journey.hops.last().map_or("started".into(), |h| h.hop.name().into()),
        Some(JourneyOutcome::Served) => "served".into(),
        Some(JourneyOutcome::Failed(_)) => "failed".into(),
        Some(JourneyOutcome::Superseded) => "superseded".into(),
        Some(JourneyOutcome::Completed) => "completed".into(),
    }
}

fn table(app: &App, shown: &[&Journey], area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    let wide = area.width >= 60;
    let rows = shown.iter().map(|journey| {
        let mut cells = vec![
            Cell::from(text::age(journey.started, app.now)),
            Cell::from(text::plain(journey.service.as_str())),
            Cell::from(Line::from(widgets::state(theme, mood(journey), outcome(journey)))),
            Cell::from(Line::raw(text::duration(journey.total_ms())).right_aligned()),
        ];
        if wide {
            cells.push(Cell::from(format!(" {}", text::plain(&journey.cause))));
        }
        Row::new(cells)
    });
    let mut widths =
        vec![Constraint::Length(4), Constraint::Fill(1), Constraint::Length(12), Constraint::Length(TIME as u16)];
    let mut titles = vec!["AGE", "SERVICE", "OUTCOME", "     TIME"];
    if wide {
        widths.push(Constraint::Fill(3));
        titles.push(" CAUSE");
    }
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(theme.quiet()))
        .row_highlight_style(theme.selected())
        .highlight_symbol(theme.symbols.cursor)
        .block(widgets::panel(theme, " Journeys "));
    let mut state = TableState::new().with_selected(Some(selected(app)));
    frame.render_stateful_widget(table, area, &mut state);
}

fn details(app: &App, journey: &Journey, area: Rect, frame: &mut Frame<'_>) {
    let id = journey.id.as_str();
    let title = format!(" {} {} ", text::plain(journey.service.as_str()), id.get(..8).unwrap_or(id));
    let block = widgets::panel(&app.theme, title);
    let columns = block.inner(area).width as usize;
    let scroll = if app.details { app.scroll as u16 } else { 0 };
    frame.render_widget(Paragraph::new(waterfall(app, journey, columns)).scroll((scroll, 0)).block(block), area);
}

/// A line a hop: its name, what it took, and where that lies in the whole.
fn waterfall(app: &App, journey: &Journey, columns: usize) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let room = columns.saturating_sub(NAME + TIME + 2).clamp(4, 60);
    let total = journey.total_ms().max(1);
    let mut lines = vec![Line::from(vec![
        Span::styled(text::plain(&journey.cause), theme.title()),
        Span::raw(format!("  {} ago  ", text::age(journey.started, app.now)).replace("now ago", "now")),
        Span::styled(
            format!("{}, {}", outcome(journey), text::duration(journey.total_ms())),
            theme.mood(mood(journey)),
        ),
    ])];
    let mut before = 0;
    for (record, (hop, took)) in journey.hops.iter().zip(journey.legs()) {
        let bar = bar(theme.symbols.bars, before, took, total, room);
        before += took;
        let used = NAME + TIME + 2 + room;
        let detail = text::plain(&record.detail).replace('\n', " ");
        let detail = text::fit(&detail, columns.saturating_sub(used + 1), theme.symbols.ellipsis);
        lines.push(Line::from(vec![
            Span::raw(format!("{:<NAME$}", hop.name())),
            Span::styled(format!("{:>TIME$}  ", text::duration(took)), theme.quiet()),
            Span::styled(format!("{bar:<room$}"), theme.mood(Mood::Good)),
            Span::styled(format!(" {detail}"), theme.quiet()),
        ]));
    }
    if let Some(JourneyOutcome::Failed(reason)) = &journey.outcome {
        let rows = widgets::wrap(&text::plain(reason), columns);
        lines.extend(rows.into_iter().map(|row| Line::styled(row, theme.mood(Mood::Bad))));
    }
    lines
}

/// A bar for `took` of `total` that begins after `before`, in eighths of a cell.
fn bar(eighths: [&'static str; 8], before: i64, took: i64, total: i64, room: usize) -> String {
    let cells = |ms: i64| ms.clamp(0, total) as f64 / total as f64 * room as f64;
    let start = (cells(before) as usize).min(room.saturating_sub(1));
    let length = ((cells(took) * 8.0).round() as usize).clamp(1, (room - start) * 8);
    let mut bar = " ".repeat(start) + &eighths[7].repeat(length / 8);
    if !length.is_multiple_of(8) {
        bar.push_str(eighths[length % 8 - 1]);
    }
    bar
}

#[cfg(test)]
mod unit {
    use super::bar;

    const EIGHTHS: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "#"];

    #[test]
    fn bars_lie_where_the_time_was_spent() {
        assert_eq!(bar(EIGHTHS, 0, 500, 1000, 8), "####");
        assert_eq!(bar(EIGHTHS, 500, 500, 1000, 8), "    ####");
        assert_eq!(bar(EIGHTHS, 999, 1, 1000, 8), "       1", "never invisible");
        assert_eq!(bar(EIGHTHS, 0, 1000, 1000, 8), "########", "never too long");
        assert_eq!(bar(EIGHTHS, 0, 562, 1000, 8), "####4");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(before in -5i64..9000, took in -5i64..9000, total in 1i64..9000, room in 1usize..80) {
            let bar = bar(EIGHTHS, before, took, total, room);
            proptest::prop_assert!(bar.chars().count() <= room);
        }
    }
}
