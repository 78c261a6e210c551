//! Colours and symbols. Only the terminal's own sixteen colours, so that both light and dark
//! themes stay readable; with `NO_COLOR` weight and inversion alone.

use aksim_model::event::{ComponentState, ServiceState};
use ratatui::{
    style::{Color, Modifier, Style},
    symbols::border,
};

/// What a state means to whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Works with something missing.
    Warn,
    /// Broken.
    Bad,
    /// Not there, not wanted.
    Idle,
}

impl From<ComponentState> for Mood {
    fn from(state: ComponentState) -> Self {
        match state {
            ComponentState::Starting => Mood::Busy,
            ComponentState::Ready => Mood::Good,
            ComponentState::Degraded => Mood::Warn,
            ComponentState::Failed => Mood::Bad,
            ComponentState::Stopped => Mood::Idle,
        }
    }
}

impl From<ServiceState> for Mood {
    fn from(state: ServiceState) -> Self {
        match state {
            ServiceState::Pending => Mood::Idle,
            ServiceState::Building | ServiceState::Pushing | ServiceState::RollingOut => Mood::Busy,
            ServiceState::Ready => Mood::Good,
            ServiceState::Failed => Mood::Bad,
        }
    }
}

/// Symbols, in Unicode or in ASCII.
#[derive(Clone, Copy, Debug)]
pub struct Symbols {
    /// Corners and lines of boxes.
    pub border: border::Set<'static>,
    /// Arrow heads: right, left, up, down.
    pub arrows: [&'static str; 4],
    /// Lines of arrows: horizontal, vertical.
    pub lines: [&'static str; 2],
    /// Marks for good, busy, warn, bad, idle.
    pub marks: [&'static str; 5],
    /// Bars in eighths of a cell, from one to eight.
    pub bars: [&'static str; 8],
    /// Where text was cut.
    pub ellipsis: &'static str,
    /// In front of the selected row.
    pub cursor: &'static str,
    /// Between facts on a line.
    pub dot: &'static str,
    /// Between columns of a log line.
    pub rule: &'static str,
}

const UNICODE: Symbols = Symbols {
    border: border::ROUNDED,
    arrows: ["▶", "◀", "▲", "▼"],
    lines: ["─", "│"],
    marks: ["●", "◐", "▲", "✖", "○"],
    bars: ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"],
    ellipsis: "…",
    cursor: "▸ ",
    dot: " · ",
    rule: " │ ",
};

const ASCII: Symbols = Symbols {
    border: border::Set {
        top_left: "+",
        top_right: "+",
        bottom_left: "+",
        bottom_right: "+",
        vertical_left: "|",
        vertical_right: "|",
        horizontal_top: "-",
        horizontal_bottom: "-",
    },
    arrows: [">", "<", "^", "v"],
    lines: ["-", "|"],
    marks: ["*", "~", "!", "x", "o"],
    bars: ["-", "-", "-", "=", "=", "=", "#", "#"],
    ellipsis: "~",
    cursor: "> ",
    dot: " - ",
    rule: " | ",
};

/// How the dashboard looks.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    color: bool,
    /// Symbols to draw with.
    pub symbols: Symbols,
}

impl Theme {
    /// A theme with or without colour, in Unicode or in ASCII.
    pub fn new(color: bool, unicode: bool) -> Self {
        Self { color, symbols: if unicode { UNICODE } else { ASCII } }
    }

    /// What the terminal can do, by `NO_COLOR`, `TERM` and the locale.
    pub fn from_environment() -> Self {
        Self::by(|name| std::env::var(name).ok())
    }

    fn by(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty());
        let term = set("TERM").unwrap_or_default();
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let unicode = (locale.contains("utf-8") || locale.contains("utf8")) && term != "linux" && term != "dumb";
        Self::new(set("NO_COLOR").is_none() && term != "dumb", unicode)
    }

    fn colored(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    /// Style of a state.
    pub fn mood(&self, mood: Mood) -> Style {
        match mood {
            Mood::Good => self.colored(Color::Green),
            Mood::Busy => self.colored(Color::Cyan),
            Mood::Warn => self.colored(Color::Yellow),
            Mood::Bad => self.colored(Color::Red).add_modifier(Modifier::BOLD),
            Mood::Idle => self.quiet(),
        }
    }

    /// Mark of a state: told apart by shape as well as by colour.
    pub fn mark(&self, mood: Mood) -> &'static str {
        self.symbols.marks[mood as usize]
    }

    /// What matters less.
    pub fn quiet(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Names and titles.
    pub fn title(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What can be pressed or typed.
    pub fn key(&self) -> Style {
        self.colored(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// Addresses.
    pub fn link(&self) -> Style {
        self.colored(Color::Blue).add_modifier(Modifier::UNDERLINED)
    }

    /// The selected row or tab.
    pub fn selected(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Text that was searched for.
    pub fn found(&self) -> Style {
        match self.color {
            true => Style::new().fg(Color::Black).bg(Color::Yellow),
            false => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
        }
    }

    /// The colour of the `index`-th service.
    pub fn service(&self, index: usize) -> Style {
        const WHEEL: [Color; 6] = [Color::Cyan, Color::Magenta, Color::Green, Color::Yellow, Color::Blue, Color::Red];
        self.colored(WHEEL[index % WHEEL.len()])
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn follows_the_terminal() {
        let theme = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Theme::by(move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        let rich = theme(&[("TERM", "xterm-256color"), ("LANG", "de_DE.UTF-8")]);
        assert_eq!(rich.mood(Mood::Good).fg, Some(Color::Green));
        assert_eq!(rich.symbols.cursor, "▸ ");
        assert_eq!(theme(&[("TERM", "xterm"), ("LANG", "C")]).symbols.cursor, "> ");
        assert_eq!(theme(&[("LANG", "C.UTF-8"), ("LC_ALL", "C")]).symbols.cursor, "> ");
        let plain = theme(&[("NO_COLOR", "1"), ("LANG", "C.utf8")]);
        assert_eq!((plain.mood(Mood::Bad).fg, plain.found().bg), (None, None));
        assert!(theme(&[("NO_COLOR", "")]).color, "an empty NO_COLOR does not count");
    }
}
