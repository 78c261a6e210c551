//! Keys, as k9s and less have them.

use super::{prompt::Purpose, tabs::Tab};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave.
    Quit,
    /// Go to a tab.
    Show(Tab),
    /// Go to the tab this many to the right.
    Turn(isize),
    /// Go this many rows down.
    Move(isize),
    /// Go this many half pages down.
    Page(isize),
    /// Go to the first row.
    Top,
    /// Go to the last row.
    Bottom,
    /// Details of the selected row.
    Enter,
    /// One step back.
    Back,
    /// Begin to type.
    Type(Purpose),
    /// Build and roll out the selected service.
    Trigger,
    /// Show addresses.
    Open,
    /// Logs of the selected service.
    Logs,
    /// Follow logs, or not.
    Follow,
    /// Next or previous find.
    Find {
        /// Towards newer lines.
        forward: bool,
    },
}

/// A row of the key table, for the help tab.
pub const KEYS: &[(&str, &str)] = &[
    ("1-6  tab", "switch tab"),
    ("j k  arrows", "down, up"),
    ("g G", "first, last"),
    ("^d ^u", "half a page down, up"),
    ("enter", "details"),
    ("esc", "back; clear the filter"),
    (":", "command, tab completes"),
    ("/", "filter rows"),
    ("^f  n N", "find in logs; next, previous"),
    ("t", "trigger the selected service"),
    ("o", "show addresses"),
    ("l", "logs of the selected service"),
    ("f", "follow logs, or stop following"),
    ("q  ^c", "leave"),
];

/// What a key means when nothing is being typed.
pub fn action(key: KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match (key.code, control) {
        (KeyCode::Char('c'), true) => Action::Quit,
        (KeyCode::Char('d'), true) | (KeyCode::PageDown, _) => Action::Page(1),
        (KeyCode::Char('u'), true) | (KeyCode::PageUp, _) => Action::Page(-1),
        (KeyCode::Char('f'), true) => Action::Type(Purpose::Search),
        (_, true) => return None,
        (KeyCode::Char('q'), _) => Action::Quit,
        (KeyCode::Char(digit @ '1'..='9'), _) => Action::Show(*Tab::ALL.get(digit as usize - '1' as usize)?),
        (KeyCode::Tab | KeyCode::Right, _) => Action::Turn(1),
        (KeyCode::BackTab | KeyCode::Left, _) => Action::Turn(-1),
        (KeyCode::Char('j') | KeyCode::Down, _) => Action::Move(1),
        (KeyCode::Char('k') | KeyCode::Up, _) => Action::Move(-1),
        (KeyCode::Char('g') | KeyCode::Home, _) => Action::Top,
        (KeyCode::Char('G') | KeyCode::End, _) => Action::Bottom,
        (KeyCode::Enter, _) => Action::Enter,
        (KeyCode::Esc, _) => Action::Back,
        (KeyCode::Char(':'), _) => Action::Type(Purpose::Command),
        (KeyCode::Char('/'), _) => Action::Type(Purpose::Filter),
        (KeyCode::Char('?'), _) => Action::Show(Tab::Help),
        (KeyCode::Char('t'), _) => Action::Trigger,
        (KeyCode::Char('o'), _) => Action::Open,
        (KeyCode::Char('l'), _) => Action::Logs,
        (KeyCode::Char('f'), _) => Action::Follow,
        (KeyCode::Char('n'), _) => Action::Find { forward: true },
        (KeyCode::Char('N'), _) => Action::Find { forward: false },
        _ => return None,
    })
}
