//! The tabs. A new one is a file here, a variant of [`Tab`] and its line in [`Tab::view`].

pub mod flow;
pub mod help;
pub mod journeys;
pub mod logs;
pub mod pipelines;
pub mod services;

use super::app::App;
use ratatui::{Frame, layout::Rect};

/// What a tab must be able to do.
pub trait View: Sync {
    /// Name in the header.
    fn title(&self) -> &'static str;
    /// Keys worth knowing here, with what they do.
    fn hints(&self) -> &'static [(&'static str, &'static str)];
    /// Draws it.
    fn render(&self, app: &App, area: Rect, frame: &mut Frame<'_>);
    /// How many lines its scrolling part has; 0 when nothing scrolls.
    fn scrollable_lines(&self, _app: &App) -> usize {
        0
    }
}

/// A tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    /// The eight rows of the data flow.
    Flow,
    /// Services of the project.
    Services,
    /// Their logs.
    Logs,
    /// Changes on their way.
    Journeys,
    /// Runs of pipelines.
    Pipelines,
    /// Keys and commands.
    Help,
}

impl Tab {
    /// All, in order.
    pub const ALL: [Tab; 6] = [Tab::Flow, Tab::Services, Tab::Logs, Tab::Journeys, Tab::Pipelines, Tab::Help];

    fn view(self) -> &'static dyn View {
        match self {
            Tab::Flow => &flow::Flow,
            Tab::Services => &services::Services,
            Tab::Logs => &logs::Logs,
            Tab::Journeys => &journeys::Journeys,
            Tab::Pipelines => &pipelines::Pipelines,
            Tab::Help => &help::Help,
        }
    }

    /// Name in the header.
    pub fn title(self) -> &'static str {
        self.view().title()
    }

    /// Keys worth knowing here, with what they do.
    pub fn hints(self) -> &'static [(&'static str, &'static str)] {
        self.view().hints()
    }

    /// Draws it.
    pub fn render(self, app: &App, area: Rect, frame: &mut Frame<'_>) {
        self.view().render(app, area, frame);
    }

    /// How many lines its scrolling part has.
    pub fn scrollable_lines(self, app: &App) -> usize {
        self.view().scrollable_lines(app)
    }
}
