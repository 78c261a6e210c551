//! The tabs. A new one is a file here with a [`View`], and its line in the table below: its number, title,
//! command, row in help and state follow from that.

mod flow;
mod help;
pub(crate) mod journeys;
pub(crate) mod logs;
pub(crate) mod pipelines;
pub(crate) mod services;

use super::{
    app::App,
    commands::{Meaning, Typed, Verb},
};
use aksim_model::ids::ServiceName;
use ratatui::{Frame, layout::Rect};

/// What a tab must be able to do. Where `app` may change, the tab's own state is [`App::state_mut`]'s.
pub(crate) trait View: Sync {
    /// Name in the header.
    fn title(&self) -> &'static str;
    /// Its command, as a row of help.
    fn verb(&self) -> &'static Verb;
    /// Keys worth knowing here, with what they do.
    fn hints(&self) -> &'static [(&'static str, &'static str)];
    /// Draws it.
    fn render(&self, app: &App, area: Rect, frame: &mut Frame<'_>);
    /// How many lines its scrolling part has; 0 when nothing scrolls.
    fn scrollable_lines(&self, _app: &App) -> usize {
        0
    }
    /// Selects the row that many below, far too many being the last; `false` when there are no rows to select.
    fn select(&self, _app: &mut App, _by: isize) -> bool {
        false
    }
    /// Whether there are details of the selected row.
    fn has_details(&self, _app: &App) -> bool {
        false
    }
    /// The service that is selected: its addresses and logs are shown.
    fn selected_service(&self, _app: &App) -> Option<ServiceName> {
        None
    }
    /// The service that is built and rolled out anew from here.
    fn triggers(&self, app: &App) -> Option<ServiceName> {
        self.selected_service(app)
    }
    /// Forgets what narrows the tab besides its filter.
    fn widen(&self, _app: &mut App) {}
}

/// What every tab remembers of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct TabState {
    /// Row filter.
    pub filter: String,
    /// Index of the selected row, for tabs whose rows stay where they are.
    pub row: usize,
    /// Key of the selected row, for tabs whose rows move; the first row when `None`.
    pub key: Option<String>,
}

/// Where `by` rows from a row is, far too many being the first or the last.
fn moved(from: usize, by: isize, count: usize) -> usize {
    from.saturating_add_signed(by).min(count.saturating_sub(1))
}

/// The command of a tab, which shows it.
const fn verb(name: &'static str, aliases: &'static [&'static str], tab: Tab, help: &'static str) -> Verb {
    Verb { name, aliases, meaning: Meaning::Alone(Typed::Show(tab)), help }
}

macro_rules! tabs {
    ($($(#[$doc:meta])* $name:ident: $module:ident,)*) => {
        /// A tab.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Tab {
            $($(#[$doc])* $name,)*
        }

        impl Tab {
            /// All, in order.
            pub(crate) const ALL: [Tab; [$(stringify!($name)),*].len()] = [$(Tab::$name),*];

            /// What it can do.
            pub(crate) fn view(self) -> &'static dyn View {
                match self {
                    $(Tab::$name => &$module::$name,)*
                }
            }
        }
    };
}

tabs! {
    /// The eight rows of the data flow.
    Flow: flow,
    /// Services of the project.
    Services: services,
    /// Their logs.
    Logs: logs,
    /// Changes on their way.
    Journeys: journeys,
    /// Runs of pipelines.
    Pipelines: pipelines,
    /// Keys and commands.
    Help: help,
}

/// `1-6`: a digit a tab.
const DIGITS: [u8; 3] = {
    assert!(Tab::ALL.len() < 10, "a tab's number is one key");
    [b'1', b'-', b'0' + Tab::ALL.len() as u8]
};

impl Tab {
    /// The number keys that the tabs have, for people.
    pub(crate) const NUMBERS: &str = match std::str::from_utf8(&DIGITS) {
        Ok(text) => text,
        Err(_) => panic!("digits are text"),
    };

    /// Its number key.
    pub(crate) const fn number(self) -> &'static str {
        ["1", "2", "3", "4", "5", "6", "7", "8", "9"][self as usize]
    }

    /// Name in the header.
    pub(crate) fn title(self) -> &'static str {
        self.view().title()
    }

    /// Its command.
    pub(crate) fn verb(self) -> &'static Verb {
        self.view().verb()
    }
}
