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

/// A row of the key table: what the help tab says, and the keys themselves.
struct Row {
    keys: &'static str,
    help: &'static str,
    presses: &'static [Press],
}

/// A key, with control held or not, and what it asks for.
type Press = (KeyCode, bool, Action);

const fn key(code: KeyCode, action: Action) -> Press {
    (code, false, action)
}

const fn typed(c: char, action: Action) -> Press {
    key(KeyCode::Char(c), action)
}

const fn control(c: char, action: Action) -> Press {
    (KeyCode::Char(c), true, action)
}

const fn row(keys: &'static str, help: &'static str, presses: &'static [Press]) -> Row {
    Row { keys, help, presses }
}

/// All keys but the numbers of the tabs.
const ROWS: &[Row] = &[
    row(
        "tab",
        "switch tab",
        &[
            key(KeyCode::Tab, Action::Turn(1)),
            key(KeyCode::Right, Action::Turn(1)),
            key(KeyCode::BackTab, Action::Turn(-1)),
            key(KeyCode::Left, Action::Turn(-1)),
            typed('?', Action::Show(Tab::Help)),
        ],
    ),
    row(
        "j k  arrows",
        "down, up",
        &[
            typed('j', Action::Move(1)),
            key(KeyCode::Down, Action::Move(1)),
            typed('k', Action::Move(-1)),
            key(KeyCode::Up, Action::Move(-1)),
        ],
    ),
    row(
        "g G",
        "first, last",
        &[
            typed('g', Action::Top),
            key(KeyCode::Home, Action::Top),
            typed('G', Action::Bottom),
            key(KeyCode::End, Action::Bottom),
        ],
    ),
    row(
        "^d ^u",
        "half a page down, up",
        &[
            control('d', Action::Page(1)),
            key(KeyCode::PageDown, Action::Page(1)),
            (KeyCode::PageDown, true, Action::Page(1)),
            control('u', Action::Page(-1)),
            key(KeyCode::PageUp, Action::Page(-1)),
            (KeyCode::PageUp, true, Action::Page(-1)),
        ],
    ),
    row("enter", "details", &[key(KeyCode::Enter, Action::Enter)]),
    row("esc", "back; clear the filter", &[key(KeyCode::Esc, Action::Back)]),
    row(":", "command, tab completes", &[typed(':', Action::Type(Purpose::Command))]),
    row("/", "filter rows", &[typed('/', Action::Type(Purpose::Filter))]),
    row(
        "^f  n N",
        "find in logs; next, previous",
        &[
            control('f', Action::Type(Purpose::Search)),
            typed('n', Action::Find { forward: true }),
            typed('N', Action::Find { forward: false }),
        ],
    ),
    row("t", "trigger the selected service", &[typed('t', Action::Trigger)]),
    row("o", "show addresses", &[typed('o', Action::Open)]),
    row("l", "logs of the selected service", &[typed('l', Action::Logs)]),
    row("f", "follow logs, or stop following", &[typed('f', Action::Follow)]),
    row("q  ^c", "leave", &[typed('q', Action::Quit), control('c', Action::Quit)]),
];

/// All keys with what they do, for people.
pub fn rows() -> impl ExactSizeIterator<Item = (String, &'static str)> {
    ROWS.iter().enumerate().map(|(index, row)| match index {
        0 => (format!("{}  {}", Tab::NUMBERS, row.keys), row.help),
        _ => (row.keys.to_owned(), row.help),
    })
}

/// What a key means when nothing is being typed.
pub fn action(key: KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if let (KeyCode::Char(digit @ '1'..='9'), false) = (key.code, control) {
        return Tab::ALL.get(digit as usize - '1' as usize).copied().map(Action::Show);
    }
    let mut presses = ROWS.iter().flat_map(|row| row.presses);
    presses.find(|(code, held, _)| (*code, *held) == (key.code, control)).map(|(_, _, action)| *action)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_key_means_one_thing() {
        let presses: Vec<_> = ROWS.iter().flat_map(|row| row.presses).map(|(code, held, _)| (code, held)).collect();
        for (index, press) in presses.iter().enumerate() {
            assert!(!presses[..index].contains(press), "{press:?} stands twice");
        }
    }
}
