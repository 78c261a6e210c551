//! Keys and commands.

use super::{Tab, View, verb};
use crate::{
    app::App,
    commands::{self, Verb},
    keys, widgets,
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

/// The tab.
pub(crate) struct Help;

impl View for Help {
    fn title(&self) -> &'static str {
        "Help"
    }

    fn verb(&self) -> &'static Verb {
        static VERB: Verb = verb("help", &["h", "?"], Tab::Help, "keys and commands");
        &VERB
    }

    fn hints(&self) -> &'static [(&'static str, &'static str)] {
        &[("j k", "scroll"), (Tab::NUMBERS, "tabs"), (":", "command"), ("q", "quit")]
    }

    fn render(&self, app: &App, area: Rect, frame: &mut Frame<'_>) {
        let keys = widgets::key_lines(&app.theme);
        if area.width >= 90 {
            let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
            frame.render_widget(Paragraph::new(keys).block(widgets::panel(&app.theme, " Keys ")), left);
            let commands = Paragraph::new(command_lines(app)).block(widgets::panel(&app.theme, " Commands "));
            frame.render_widget(commands, right);
            return;
        }
        let mut lines = vec![Line::styled(" Keys", app.theme.title())];
        lines.extend(keys);
        lines.push(Line::styled(" Commands", app.theme.title()));
        lines.extend(command_lines(app));
        frame.render_widget(Paragraph::new(lines).scroll((app.scroll as u16, 0)), area);
    }

    fn scrollable_lines(&self, _app: &App) -> usize {
        keys::rows().len() + commands::verbs().count() + 2
    }
}

fn command_lines(app: &App) -> Vec<Line<'static>> {
    let line = |verb: &Verb| {
        let typed = format!(" :{} {}", verb.name, verb.meaning.argument());
        Line::from(vec![Span::styled(format!("{typed:<20}"), app.theme.key()), Span::raw(verb.help)])
    };
    commands::verbs().map(line).collect()
}
