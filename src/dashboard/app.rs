//! The dashboard's state and how it changes. Pure: what must be done outside is an [`Effect`].

use super::{
    commands::{self, Typed},
    keys::{self, Action},
    prompt::{Prompt, Purpose},
    tabs::{Tab, TabState, logs::LogsView},
    text,
    theme::{Mood, Theme},
};
use aksim_model::{
    command::{Command, CommandReply},
    endpoint::Endpoint,
    ids::ServiceName,
    log::LogLine,
    world::World,
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use std::sync::Arc;

/// How long a notice stays, in seconds.
const NOTICE_SECONDS: i64 = 6;

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum Message {
    /// The world changed.
    World(Arc<World>),
    /// Nobody tells about the world any more.
    Lost,
    /// Lines were logged.
    Logs(Vec<LogLine>),
    /// A key was pressed.
    Key(KeyEvent),
    /// A command was answered.
    Reply(Result<CommandReply, String>),
    /// The terminal has this many rows.
    Rows(u16),
    /// Time goes on.
    Tick(Timestamp),
}

/// Something that must be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Leave the dashboard.
    Quit,
    /// Send a command.
    Send(Command),
}

/// What lies over the tab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Popup {
    /// Addresses to read or copy.
    Addresses {
        /// Whose.
        title: String,
        /// Them.
        endpoints: Vec<Endpoint>,
    },
    /// A question before something that cannot be taken back.
    Confirm {
        /// The question.
        question: String,
        /// What `y` sends.
        command: Command,
    },
}

/// A line of news in the footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub text: String,
    /// How it is meant.
    pub mood: Mood,
    at: Timestamp,
}

/// The dashboard.
#[derive(Debug)]
pub struct App {
    /// Name of the environment.
    pub environment: String,
    /// What is known of it.
    pub world: Arc<World>,
    /// Whether it still tells.
    pub connected: bool,
    /// The time that ages are measured at.
    pub now: Timestamp,
    /// How it looks.
    pub theme: Theme,
    /// The tab that is shown.
    pub tab: Tab,
    /// What is being typed.
    pub prompt: Option<Prompt>,
    /// What lies over the tab.
    pub popup: Option<Popup>,
    /// Whether details of the selected row fill the tab.
    pub details: bool,
    /// First line shown of what scrolls: details, help.
    pub scroll: usize,
    /// The Logs tab.
    pub logs: LogsView,
    /// What each tab remembers, by its number.
    states: [TabState; Tab::ALL.len()],
    notice: Option<Notice>,
    rows: u16,
}

impl App {
    /// A dashboard on its first tab.
    pub fn new(environment: impl Into<String>, world: Arc<World>, now: Timestamp, theme: Theme) -> Self {
        Self {
            environment: environment.into(),
            world,
            connected: true,
            now,
            theme,
            tab: Tab::ALL[0],
            prompt: None,
            popup: None,
            details: false,
            scroll: 0,
            logs: LogsView::default(),
            states: Default::default(),
            notice: None,
            rows: 24,
        }
    }

    /// Takes in what happened; returns what must be done.
    pub fn update(&mut self, message: Message) -> Vec<Effect> {
        match message {
            Message::World(world) => self.world = world,
            Message::Lost => self.connected = false,
            Message::Logs(lines) => self.with_logs(|logs, filter| logs.push(lines, filter)),
            Message::Tick(now) => self.now = now,
            Message::Rows(rows) => self.rows = rows,
            Message::Reply(Ok(reply)) => self.notify(reply.message, Mood::Good),
            Message::Reply(Err(reason)) => self.notify(reason, Mood::Bad),
            Message::Key(key) => return self.key(key),
        }
        Vec::new()
    }

    /// The news, while it is new.
    pub fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref().filter(|n| self.now.as_second() - n.at.as_second() < NOTICE_SECONDS)
    }

    /// What a tab remembers.
    pub fn state(&self, tab: Tab) -> &TabState {
        &self.states[tab as usize]
    }

    /// What a tab remembers, to change it.
    pub fn state_mut(&mut self, tab: Tab) -> &mut TabState {
        &mut self.states[tab as usize]
    }

    /// The logs with the filter of their tab.
    pub fn with_logs<T>(&mut self, work: impl FnOnce(&mut LogsView, &str) -> T) -> T {
        work(&mut self.logs, &self.states[Tab::Logs as usize].filter)
    }

    /// The filter of the tab that is shown.
    pub fn filter(&self) -> &str {
        &self.state(self.tab).filter
    }

    /// Names of all services.
    pub fn service_names(&self) -> Vec<String> {
        self.world.services.keys().map(|name| name.as_str().to_owned()).collect()
    }

    /// Says something in the footer.
    pub fn notify(&mut self, text: impl Into<String>, mood: Mood) {
        let text = text::plain(&text.into()).replace('\n', " ");
        self.notice = Some(Notice { text, mood, at: self.now });
    }

    /// Goes to a tab.
    pub fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.details = false;
        self.scroll = 0;
    }

    fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        if let Some(Popup::Confirm { command, .. }) = &self.popup {
            let effects = match key.code {
                KeyCode::Char('y') => vec![Effect::Send(command.clone())],
                _ => Vec::new(),
            };
            self.popup = None;
            return effects;
        }
        if self.prompt.is_some() {
            return self.type_key(key);
        }
        match keys::action(key) {
            Some(action) => self.act(action),
            None => Vec::new(),
        }
    }

    fn act(&mut self, action: Action) -> Vec<Effect> {
        let closes = self.popup.take().is_some();
        match action {
            Action::Quit => return vec![Effect::Quit],
            Action::Back if closes => {}
            Action::Back if self.details => (self.details, self.scroll) = (false, 0),
            Action::Back => self.clear_filters(),
            Action::Show(tab) => self.show(tab),
            Action::Turn(by) => {
                let count = Tab::ALL.len() as isize;
                self.show(Tab::ALL[(self.tab as isize + by).rem_euclid(count) as usize]);
            }
            Action::Type(Purpose::Search) => {
                self.show(Tab::Logs);
                self.prompt = Some(Prompt::new(Purpose::Search, self.logs.search.clone()));
            }
            Action::Type(Purpose::Filter) => {
                self.prompt = Some(Prompt::new(Purpose::Filter, self.filter()));
            }
            Action::Type(Purpose::Command) => self.prompt = Some(Prompt::new(Purpose::Command, "")),
            Action::Trigger => return self.trigger_selected(),
            Action::Open => {
                let service = self.tab.view().selected_service(self);
                self.open(service.as_ref().map(ServiceName::as_str));
            }
            Action::Logs => {
                let service = self.tab.view().selected_service(self);
                self.show_logs(service.map(|service| service.as_str().to_owned()));
            }
            Action::Follow => self.logs.follow_or_stop(),
            Action::Find { forward } => {
                if !self.with_logs(|logs, filter| logs.find(forward, filter)) {
                    self.notify("nothing more to find", Mood::Warn);
                }
            }
            Action::Enter if self.tab.view().has_details(self) => (self.details, self.scroll) = (true, 0),
            Action::Enter => {}
            Action::Move(by) => self.step(by),
            Action::Page(by) => self.step(by * (self.rows as isize / 2).max(1)),
            Action::Top => self.step(-(isize::MAX / 2)),
            Action::Bottom => self.step(isize::MAX / 2),
        }
        Vec::new()
    }

    /// Moves by rows in whatever the tab shows; far too many rows is the end.
    fn step(&mut self, by: isize) {
        let view = self.tab.view();
        if self.details || !view.select(self, by) {
            let lines = view.scrollable_lines(self);
            self.scroll = self.scroll.saturating_add_signed(by).min(lines.saturating_sub(1));
        }
    }

    fn type_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let services = self.service_names();
        let Some(prompt) = &mut self.prompt else { return Vec::new() };
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, control) {
            (KeyCode::Esc, _) | (KeyCode::Char('c'), true) => return self.cancel_prompt(),
            (KeyCode::Enter, _) => return self.accept_prompt(),
            (KeyCode::Char('w'), true) => prompt.delete_word(),
            (KeyCode::Char('u'), true) => prompt.set(String::new()),
            (KeyCode::Backspace, _) if prompt.text.is_empty() => return self.cancel_prompt(),
            (KeyCode::Backspace, _) => prompt.backspace(),
            (KeyCode::Left, _) => prompt.step(false),
            (KeyCode::Right, _) => prompt.step(true),
            (KeyCode::Tab, _) if prompt.purpose == Purpose::Command => {
                let choices = commands::complete(&prompt.text, &services);
                if let Some(common) = commands::common_start(&choices) {
                    prompt.set(if choices.len() == 1 { format!("{common} ") } else { common });
                }
            }
            (KeyCode::Char(c), false) => prompt.insert(c),
            _ => {}
        }
        self.apply_live();
        Vec::new()
    }

    /// A filter works while it is typed.
    fn apply_live(&mut self) {
        match &self.prompt {
            Some(p) if p.purpose == Purpose::Filter => {
                self.states[self.tab as usize].filter = p.text.clone();
                for state in &mut self.states {
                    (state.row, state.key) = (0, None);
                }
            }
            Some(p) if p.purpose == Purpose::Search => self.logs.search = p.text.clone(),
            _ => {}
        }
    }

    fn cancel_prompt(&mut self) -> Vec<Effect> {
        match self.prompt.take().map(|p| p.purpose) {
            Some(Purpose::Filter) => self.state_mut(self.tab).filter.clear(),
            Some(Purpose::Search) => self.logs.search.clear(),
            _ => {}
        }
        Vec::new()
    }

    fn accept_prompt(&mut self) -> Vec<Effect> {
        let Some(prompt) = self.prompt.take() else { return Vec::new() };
        match prompt.purpose {
            Purpose::Filter => Vec::new(),
            Purpose::Search => {
                self.search(prompt.text);
                Vec::new()
            }
            Purpose::Command if prompt.text.trim().is_empty() => Vec::new(),
            Purpose::Command => match commands::parse(&prompt.text, &self.service_names()) {
                Ok(typed) => self.obey(typed),
                Err(reason) => {
                    self.notify(reason, Mood::Bad);
                    Vec::new()
                }
            },
        }
    }

    fn obey(&mut self, typed: Typed) -> Vec<Effect> {
        match typed {
            Typed::Show(tab) => self.show(tab),
            Typed::Logs(service) => self.show_logs(service),
            Typed::Open(service) => self.open(service.as_deref()),
            Typed::Trigger(service) => {
                return vec![Effect::Send(Command::Trigger { service: service.map(ServiceName::new) })];
            }
            Typed::Filter(text) => self.state_mut(self.tab).filter = text,
            Typed::Search(text) => self.search(text),
            Typed::Stop => {
                self.popup = Some(Popup::Confirm {
                    question: format!("Stop {} and its containers?", self.environment),
                    command: Command::Stop,
                });
            }
            Typed::Quit => return vec![Effect::Quit],
        }
        Vec::new()
    }

    fn search(&mut self, text: String) {
        self.show(Tab::Logs);
        self.logs.search = text;
        if !self.logs.search.is_empty() && !self.with_logs(|logs, filter| logs.find(false, filter)) {
            self.notify("not found", Mood::Warn);
        }
    }

    fn clear_filters(&mut self) {
        self.state_mut(self.tab).filter.clear();
        self.tab.view().widen(self);
    }

    fn trigger_selected(&mut self) -> Vec<Effect> {
        let service = self.tab.view().triggers(self);
        match service {
            Some(service) => vec![Effect::Send(Command::Trigger { service: Some(service) })],
            None => {
                let services = Tab::Services.number();
                self.notify(format!("select a service first ({services}), or :trigger for all"), Mood::Warn);
                Vec::new()
            }
        }
    }

    fn show_logs(&mut self, service: Option<String>) {
        self.show(Tab::Logs);
        self.logs.service = service;
        self.logs.follow();
    }

    /// Shows addresses of a service, or of everything.
    fn open(&mut self, service: Option<&str>) {
        let of_service = |name: &ServiceName| -> Vec<Endpoint> {
            let endpoints = self.world.services.get(name).map(|status| status.endpoints.as_slice()).unwrap_or_default();
            endpoints.iter().map(|e| Endpoint { name: name.to_string(), url: e.url.clone() }).collect()
        };
        let (title, endpoints): (String, Vec<Endpoint>) = match service {
            Some(name) => (name.to_owned(), of_service(&name.into())),
            None => {
                let services = self.world.services.keys().flat_map(of_service);
                let components = self.world.components.values().flat_map(|c| c.endpoints.iter().cloned());
                (self.environment.clone(), services.chain(components).collect())
            }
        };
        match endpoints.is_empty() {
            true => self.notify(format!("{title} has no address on this machine"), Mood::Warn),
            false => self.popup = Some(Popup::Addresses { title, endpoints }),
        }
    }
}
