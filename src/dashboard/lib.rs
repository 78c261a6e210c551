//! Terminal dashboard: what the environment is doing, live, with k9s habits.
//!
//! `app` is the state and how it changes, pure; `render` draws it, pure; `run` joins both to a
//! terminal and to a [`DashboardSource`]. A tab is one file in `tabs` and its line in the table there.

mod app;
mod commands;
mod keys;
mod picture;
mod prompt;
mod run;
mod source;
mod tabs;
mod text;
mod theme;
mod widgets;

#[cfg(test)]
mod tests;

pub use picture::screenshot_svg;
pub use run::{DashboardError, run};
pub use source::{ControlSource, DashboardSource};
pub use tabs::Tab;

use app::App;
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    widgets::Clear,
};

/// Draws the whole dashboard.
fn render(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < 20 || area.height < 4 {
        frame.render_widget("aksim: too small", area);
        return;
    }
    let [header, body, footer] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    widgets::header(app, header, frame);
    app.tab.view().render(app, body, frame);
    if let Some(popup) = &app.popup {
        let place = widgets::popup_area(popup, body);
        frame.render_widget(Clear, place);
        widgets::popup(app, popup, place, frame);
    }
    widgets::footer(app, footer, frame);
}
