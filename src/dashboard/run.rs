//! Joins the dashboard to a terminal and to the running environment.

use super::{
    App, DashboardSource,
    app::{Effect, Message},
    render,
    theme::Theme,
};
use aksim_model::log::LogQuery;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{FuturesUnordered, Stream},
};
use jiff::Timestamp;
use ratatui::{Terminal, backend::Backend};
use std::{
    io::{self, IsTerminal},
    pin::pin,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Lines of each container to begin with.
const TAIL: u32 = 200;
/// Log lines that are taken in at once.
const BATCH: usize = 500;

/// Why the dashboard ended.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// Input or output is not a terminal.
    #[error("the dashboard needs a terminal (hint: `aksim status` and `aksim logs` do not)")]
    NoTerminal,
    /// The terminal cannot be written to or read from.
    #[error("terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows the dashboard until the user leaves or `shutdown` is cancelled. The terminal is as it was
/// afterwards, after a panic too. Nothing else may write to the terminal meanwhile.
///
/// # Errors
/// [`DashboardError`].
pub async fn run(source: impl DashboardSource, shutdown: CancellationToken) -> Result<(), DashboardError> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(DashboardError::NoTerminal);
    }
    let mut terminal = ratatui::try_init()?;
    let _restore = Restore;
    drive(&mut terminal, &source, EventStream::new(), Theme::from_environment(), shutdown).await?;
    Ok(())
}

/// Gives the terminal back.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // A panic's hook has done it already; again, it would write over the panic's message.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

/// The loop: take in what happened, draw, wait. Draws once for all that is there at once.
pub(super) async fn drive<B>(
    terminal: &mut Terminal<B>,
    source: &impl DashboardSource,
    events: impl Stream<Item = io::Result<Event>>,
    theme: Theme,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    B: Backend<Error: Send + Sync + 'static>,
{
    let mut events = pin!(events.fuse());
    let mut world = source.world();
    let mut logs = source.logs(LogQuery { service: None, tail: Some(TAIL), follow: true }).ready_chunks(BATCH).fuse();
    let mut replies: FuturesUnordered<BoxFuture<'_, Message>> = FuturesUnordered::new();
    // Ages on the screen grow older.
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    let first = world.borrow_and_update().clone();
    let mut app = App::new(source.environment(), first, Timestamp::now(), theme);
    app.update(Message::Rows(terminal.size().map_err(io::Error::other)?.height));
    loop {
        terminal.draw(|frame| render(&app, frame)).map_err(io::Error::other)?;
        let message = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => Message::Key(key),
                Some(Ok(Event::Resize(_, rows))) => Message::Rows(rows),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            changed = world.changed(), if app.connected => match changed {
                Ok(()) => Message::World(world.borrow_and_update().clone()),
                Err(_) => Message::Lost,
            },
            Some(lines) = logs.next() => Message::Logs(lines),
            Some(reply) = replies.next() => reply,
            _ = clock.tick() => Message::Tick(Timestamp::now()),
        };
        app.update(Message::Tick(Timestamp::now()));
        for effect in app.update(message) {
            match effect {
                Effect::Quit => return Ok(()),
                Effect::Send(command) => replies.push(source.command(command).map(Message::Reply).boxed()),
            }
        }
    }
}
