//! Pipelines: runs, newest first, and the stages of the selected one as the chain they are.

use super::{Tab, View, moved, verb};
use crate::{app::App, commands::Verb, text, theme::Mood, widgets};
use aksim_model::pipeline::{PipelineRun, PipelineStage};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, TableState},
};

/// The tab.
pub(crate) struct Pipelines;

/// Columns of a time.
const TIME: usize = 9;

impl View for Pipelines {
    fn title(&self) -> &'static str {
        "Pipelines"
    }

    fn verb(&self) -> &'static Verb {
        static VERB: Verb = verb("pipelines", &["pipeline", "runs"], Tab::Pipelines, "runs of pipelines");
        &VERB
    }

    fn hints(&self) -> &'static [(&'static str, &'static str)] {
        const HINTS: &[(&str, &str)] = &[
            ("j k", "select"),
            ("enter", "details"),
            (Tab::Journeys.number(), "journeys"),
            ("/", "filter"),
            ("?", "help"),
        ];
        HINTS
    }

    fn render(&self, app: &App, area: Rect, frame: &mut Frame<'_>) {
        let shown = shown(app);
        let Some(selected) = shown.get(selected(app)) else {
            return widgets::empty(&app.theme, "no runs yet: git push aksim", area, frame);
        };
        if app.details {
            return details(app, selected, area, frame);
        }
        if area.height < 14 {
            return table(app, &shown, area, frame);
        }
        let high = lines(app, selected, area.width.into()).len() as u16 + 2;
        let [list, below] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(high.min(area.height - 6))]).areas(area);
        table(app, &shown, list, frame);
        details(app, selected, below, frame);
    }

    fn scrollable_lines(&self, app: &App) -> usize {
        match (app.details, shown(app).get(selected(app))) {
            (true, Some(run)) => lines(app, run, 60).len(),
            _ => 0,
        }
    }

    fn select(&self, app: &mut App, by: isize) -> bool {
        let index = moved(selected(app), by, shown(app).len());
        // The newest stays selected while newer ones come.
        let key = shown(app).get(index).filter(|_| index > 0).map(|run| run.id.to_string());
        app.state_mut(Tab::Pipelines).key = key;
        true
    }

    fn has_details(&self, app: &App) -> bool {
        !shown(app).is_empty()
    }
}

/// Runs that the filter lets through, newest first.
pub(crate) fn shown(app: &App) -> Vec<&PipelineRun> {
    let filter = app.state(Tab::Pipelines).filter.to_lowercase();
    let fits = |run: &&PipelineRun| {
        [&run.name, &run.branch, &run.message].iter().any(|text| text.to_lowercase().contains(&filter))
    };
    app.world.pipelines.iter().rev().filter(fits).collect()
}

/// Index of the selected run among those shown.
pub(crate) fn selected(app: &App) -> usize {
    let key = app.state(Tab::Pipelines).key.as_deref();
    key.and_then(|id| shown(app).iter().position(|run| run.id.to_string() == id)).unwrap_or(0)
}

/// State and result, as Azure Pipelines writes them, as a mood and a word for people.
fn told(state: &str, result: Option<&str>) -> (Mood, String) {
    match (state, result) {
        (_, Some("Succeeded")) => (Mood::Good, "succeeded".into()),
        (_, Some("SucceededWithIssues")) => (Mood::Warn, "with issues".into()),
        (_, Some(other @ ("Failed" | "Lost"))) => (Mood::Bad, other.to_lowercase()),
        (_, Some(other)) => (Mood::Idle, other.to_lowercase()),
        ("inProgress", None) => (Mood::Busy, "running".into()),
        ("waiting", None) => (Mood::Warn, "approval".into()),
        ("cancelling", None) => (Mood::Warn, "cancelling".into()),
        ("notStarted", None) => (Mood::Idle, "queued".into()),
        (other, None) => (Mood::Idle, other.to_owned()),
    }
}

/// Milliseconds from the queue to the end, or until now.
fn took(app: &App, run: &PipelineRun) -> i64 {
    run.finished.unwrap_or(app.now).as_millisecond() - run.queued.as_millisecond()
}

fn table(app: &App, shown: &[&PipelineRun], area: Rect, frame: &mut Frame<'_>) {
    let theme = &app.theme;
    let wide = area.width >= 60;
    let rows = shown.iter().map(|run| {
        let (mood, word) = told(&run.state, run.result.as_deref());
        let mut cells = vec![
            Cell::from(text::age(run.queued, app.now)),
            Cell::from(text::plain(&run.name)),
            Cell::from(Line::from(widgets::state(theme, mood, word))),
            Cell::from(Line::raw(text::duration(took(app, run))).right_aligned()),
        ];
        if wide {
            cells.push(Cell::from(format!(" {}", text::plain(&run.branch))));
            cells.push(Cell::from(format!("{} {}", short(&run.commit), text::plain(&run.message))));
        }
        Row::new(cells)
    });
    let mut widths =
        vec![Constraint::Length(4), Constraint::Fill(1), Constraint::Length(13), Constraint::Length(TIME as u16)];
    let mut titles = vec!["AGE", "RUN", "STATE", "     TIME"];
    if wide {
        widths.extend([Constraint::Length(12), Constraint::Fill(2)]);
        titles.extend([" BRANCH", "COMMIT"]);
    }
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(theme.quiet()))
        .row_highlight_style(theme.selected())
        .highlight_symbol(theme.symbols.cursor)
        .block(widgets::panel(theme, " Runs "));
    let mut state = TableState::new().with_selected(Some(selected(app)));
    frame.render_stateful_widget(table, area, &mut state);
}

fn details(app: &App, run: &PipelineRun, area: Rect, frame: &mut Frame<'_>) {
    let title = format!(" {} #{} ", text::plain(&run.pipeline), text::plain(&run.name));
    let block = widgets::panel(&app.theme, title);
    let columns = block.inner(area).width.into();
    let scroll = if app.details { app.scroll as u16 } else { 0 };
    frame.render_widget(Paragraph::new(lines(app, run, columns)).scroll((scroll, 0)).block(block), area);
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// What is known of a run: its commit, why it runs, its stages in as many rows as they need.
fn lines(app: &App, run: &PipelineRun, columns: usize) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let (mood, word) = told(&run.state, run.result.as_deref());
    let commit = format!("{} {}", short(&run.commit), text::plain(&run.message));
    let mut lines = vec![
        Line::styled(text::fit(&commit, columns, theme.symbols.ellipsis), theme.title()),
        Line::from(vec![
            Span::raw(format!("{} on {}  ", text::plain(&run.reason), text::plain(&run.branch))),
            Span::styled(format!("{word}, {}", text::duration(took(app, run))), theme.mood(mood)),
        ]),
    ];
    let (mut row, mut used) = (Vec::new(), 0);
    for (index, stage) in run.stages.iter().enumerate() {
        let spans = stage_spans(app, stage);
        let arrow = if index == 0 { "" } else { theme.symbols.arrows[0] };
        let wide = spans.iter().map(|s| text::width(&s.content)).sum::<usize>() + text::width(arrow) + 2;
        if used > 0 && used + wide > columns {
            lines.push(Line::from(std::mem::take(&mut row)));
            used = 0;
        }
        if !arrow.is_empty() {
            row.push(Span::styled(format!(" {arrow} "), theme.quiet()));
        }
        row.extend(spans);
        used += wide;
    }
    lines.push(Line::from(row));
    lines
}

fn stage_spans(app: &App, stage: &PipelineStage) -> Vec<Span<'static>> {
    let (mood, word) = told(&stage.state, stage.result.as_deref());
    let mut spans = vec![Span::styled(format!("{} ", text::plain(&stage.name)), app.theme.title())];
    spans.extend(widgets::state(&app.theme, mood, word));
    spans
}
