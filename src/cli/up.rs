//! `aksim up`, `dev`, `down`, `dashboard`.

use super::{
    args::{DashboardArgs, DownArgs, UpArgs},
    context::Context,
    events,
    failure::{Code, Failure, listed},
    output,
};
use aksim_config::{Config, home::Home};
use aksim_dashboard::{ControlSource, Tab, screenshot_svg};
use aksim_devloop::BuildLine;
use aksim_model::{command::Command, log::LogQuery};
use aksim_runtime::{
    control::{ControlClient, ControlError, LogSource},
    files::{PUBLIC, write_atomic},
    recorder::Recorder,
};
use aksim_simulator::{KubeconfigTarget, Options, Simulator};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use std::{
    io::Write,
    os::unix::process::CommandExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    signal::unix::{SignalKind, signal},
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Tells a detached aksim that its starter reads its standard output until this line.
const DETACHED: &str = "AKSIM_DETACHED";
/// Line that ends the start of a detached aksim.
const READY_LINE: &str = "environment is up";
/// Begins a line of a build's output in what a detached aksim tells its starter.
const BUILD_MARK: &str = "build ";
/// Begins the line that says why a detached aksim ends: message and hint, as JSON.
const ERROR_PREFIX: &str = "error ";
/// How long `down` waits.
const DOWN_DEADLINE: Duration = Duration::from_secs(60);

/// Brings the environment up and stays in the foreground, or starts one behind.
pub async fn run(context: &Context, args: UpArgs, logs: bool) -> Result<(), Failure> {
    let config = context.config()?;
    let home = context.home(&config)?;
    if args.detach {
        return detach(context, &args, std::future::pending()).await;
    }
    let detached = std::env::var_os(DETACHED).is_some();
    let dashboard = !detached && !args.no_dashboard && !logs && output::interactive();
    init_tracing(context.verbose, dashboard, &home)?;
    let options = options(&args)?;
    let ended = foreground(config, &home, options, Foreground { dashboard, logs, detached }).await;
    if let (true, Err(failure)) = (detached, &ended) {
        tell_starter(failure);
    }
    ended
}

/// Tells whoever started this detached aksim why it ends; the log may be on a disk that is full.
fn tell_starter(failure: &Failure) {
    let text = serde_json::to_string(&(&failure.message, &failure.hint)).unwrap_or_default();
    // The starter has gone if the environment came up.
    let _ = writeln!(std::io::stdout(), "{ERROR_PREFIX}{text}");
}

/// How a foreground run shows itself.
struct Foreground {
    dashboard: bool,
    logs: bool,
    detached: bool,
}

fn options(args: &UpArgs) -> Result<Options, Failure> {
    let kubeconfig = match &args.kubeconfig {
        Some(file) => KubeconfigTarget::File(std::path::absolute(file)?),
        // CI keeps its hands off the user's files.
        None if std::env::var_os("CI").is_some() => KubeconfigTarget::None,
        None => KubeconfigTarget::User,
    };
    Ok(Options { watch: !args.no_watch, kubeconfig, exe: std::env::current_exe()? })
}

async fn foreground(config: Config, home: &Home, options: Options, show: Foreground) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut tasks = JoinSet::new();
    let begun = Timestamp::now();
    let interrupted = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let mut simulator = Simulator::start(config, home, options, interrupted).await?;
    let source = match show.dashboard {
        false => None,
        true => match ControlSource::connect(ControlClient::new(&home.control_socket())).await {
            Ok(source) => Some(source),
            Err(error) => {
                simulator.stop().await?;
                return Err(error.into());
            }
        },
    };
    if !show.dashboard {
        tasks.spawn(print_events(simulator.recorder().clone(), begun, show.detached));
        if show.detached {
            tasks.spawn(print_build_output(simulator.build_output()));
        }
    }
    if show.logs {
        tasks.spawn(print_logs(simulator.logs()));
    }
    let stop = simulator.stop_requested();
    let left = CancellationToken::new();
    if let Some(source) = source {
        tasks.spawn(show_dashboard(source, stop.clone(), left.clone()));
    }
    let outcome = {
        let deployed = async {
            let deployed = simulator.deploy().await;
            if !show.dashboard {
                announce(&deployed, show.detached);
            }
            deployed
        };
        tokio::select! {
            deployed = deployed => Ok(deployed),
            () = stop.cancelled() => Ok(Ok(())),
            () = left.cancelled() => Ok(Ok(())),
            _ = interrupt.recv() => Err(Failure::new(Code::Interrupted, "interrupted")),
            _ = terminate.recv() => Ok(Ok(())),
        }
    };
    let ended = match outcome {
        Ok(_) => tokio::select! {
            ended = simulator.wait() => ended.map_err(Failure::from),
            () = left.cancelled() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        },
        Err(failure) => Err(failure),
    };
    let stopped = tokio::select! {
        stopped = simulator.stop() => stopped.map_err(Failure::from),
        _ = interrupt.recv() => Err(Failure::new(Code::Interrupted, "interrupted while stopping").hint("run `aksim down`")),
    };
    tasks.shutdown().await;
    ended.and(stopped)
}

/// Says once that everything answers, or what does not.
fn announce(deployed: &Result<(), Vec<(aksim_model::ids::ServiceName, String)>>, detached: bool) {
    match deployed {
        Ok(()) if detached => {
            // The starter may have gone; then nobody reads.
            let _ = writeln!(std::io::stdout(), "{READY_LINE}");
        }
        Ok(()) => eprintln!("{READY_LINE}; ctrl-c stops it"),
        Err(failed) => {
            let items = failed.iter().map(|(name, why)| (name.to_string(), why.clone()));
            let failure = listed(Code::Failure, "these services do not answer; save a file to try again", items);
            if detached {
                // One line each: the starter reads lines. JSON keeps line ends inside.
                let text = serde_json::to_string(&failure.to_string()).unwrap_or_default();
                let _ = writeln!(std::io::stdout(), "failed {text}");
            } else {
                eprintln!("{failure}");
            }
        }
    }
}

/// The dashboard in front of the environment; leaving it stops the environment.
async fn show_dashboard(source: ControlSource, stop: CancellationToken, left: CancellationToken) {
    if let Err(error) = aksim_dashboard::run(source, stop).await {
        eprintln!("{error}");
    }
    left.cancel();
}

async fn print_events(recorder: Recorder, begun: Timestamp, to_stdout: bool) {
    let mut events = recorder.subscribe();
    // What happened before anybody could listen.
    let world = recorder.world();
    for (name, status) in &world.components {
        let urls: Vec<&str> = status.endpoints.iter().map(|e| e.url.as_str()).collect();
        emit(&format!("{name} {} {}", super::status::component_state(status.state), urls.join(" ")), to_stdout);
    }
    for warning in world.warnings.iter().filter(|warning| warning.at >= begun) {
        emit(&events::warning(&warning.subject, &warning.message, warning.hint.as_deref()), to_stdout);
    }
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Some(line) = events::line(&event) {
                    emit(&line, to_stdout);
                }
            }
            Err(RecvError::Lagged(missed)) => emit(&format!("({missed} events left out)"), to_stdout),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Lines of builds to the starter, which shows the last one.
async fn print_build_output(mut lines: Receiver<BuildLine>) {
    loop {
        match lines.recv().await {
            Ok(BuildLine { service, line }) => emit(&format!("{BUILD_MARK}{service}: {line}"), true),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn emit(line: &str, to_stdout: bool) {
    // Nobody reading is not a reason to stop.
    let _ = match to_stdout {
        true => writeln!(std::io::stdout(), "{line}"),
        false => writeln!(std::io::stderr(), "{line}"),
    };
}

async fn print_logs(source: impl LogSource) {
    let mut lines = source.lines(LogQuery { service: None, tail: Some(10), follow: true });
    while let Some(line) = lines.next().await {
        if output::text(&format!("{} {}\n", line.service, line.line)).is_err() {
            return;
        }
    }
}

fn init_tracing(verbose: u8, to_file: bool, home: &Home) -> Result<(), Failure> {
    let level = match verbose {
        0 => "warn,build=info",
        1 => "warn,build=info,aksim=info",
        2 => "info,aksim=debug",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("AKSIM_LOG").unwrap_or_else(|_| level.into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(true);
    if to_file {
        let folder = home.logs();
        std::fs::create_dir_all(&folder)?;
        let file = std::fs::File::options().create(true).append(true).open(folder.join("aksim.log"))?;
        // A second subscriber in one process is refused; the first one serves.
        let _ = builder.with_ansi(false).with_writer(file).try_init();
    } else {
        let _ = builder.with_ansi(output::colour()).with_writer(std::io::stderr).try_init();
    }
    Ok(())
}

/// Starts aksim behind and returns once the environment answers; ends it again if `stop` comes before.
pub async fn detach(context: &Context, args: &UpArgs, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let config = context.config()?;
    let home = context.home(&config)?;
    std::fs::create_dir_all(home.logs())?;
    let log = std::fs::File::options().create(true).append(true).open(home.logs().join("aksim.log"))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("--project").arg(&config.root).arg("up");
    if args.no_watch {
        command.arg("--no-watch");
    }
    if let Some(file) = &args.kubeconfig {
        command.arg("--kubeconfig").arg(std::path::absolute(file)?);
    }
    command.env(DETACHED, "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone()?);
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    let mut child = tokio::process::Command::from(command).spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| Failure::new(Code::Bug, "a pipe is missing"))?;
    let mut lines = BufReader::new(stdout).lines();
    let progress = progress();
    let mut told: Option<(String, Option<String>)> = None;
    let mut stop = std::pin::pin!(stop);
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            () = &mut stop => {
                progress.finish_and_clear();
                return end_start(child).await;
            }
        };
        let Some(line) = line else { break };
        if let Some(text) = line.strip_prefix(ERROR_PREFIX) {
            told = serde_json::from_str(text).ok();
            continue;
        }
        if line == READY_LINE {
            progress.finish_and_clear();
            eprintln!("{READY_LINE} (process {}); `aksim down` stops it", child.id().unwrap_or_default());
            return Ok(());
        }
        if let Some(text) = line.strip_prefix("failed ") {
            let message: String = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
            let message = message.trim_start_matches("error: ").to_owned();
            progress.finish_and_clear();
            return Err(Failure::new(Code::Failure, message).hint("the environment runs; `aksim down` stops it"));
        }
        match line.strip_prefix(BUILD_MARK) {
            Some(output) if progress.is_hidden() => eprintln!("  {output}"),
            Some(output) => progress.set_message(output.trim().to_owned()),
            None => progress.suspend(|| eprintln!("{line}")),
        }
    }
    progress.finish_and_clear();
    Err(not_started(child.wait().await?, told, &home))
}

/// Interrupts an aksim that is bringing its environment up, and waits until it has ended what it started.
async fn end_start(mut child: tokio::process::Child) -> Result<(), Failure> {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // One that has ended meanwhile is what is wanted.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGINT);
    }
    if tokio::time::timeout(DOWN_DEADLINE, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Err(Failure::new(Code::Interrupted, "interrupted"))
}

/// Why a detached aksim ended before its environment was up.
fn not_started(status: ExitStatus, told: Option<(String, Option<String>)>, home: &Home) -> Failure {
    let (message, hint) = told.unwrap_or_else(|| {
        let text = std::fs::read_to_string(home.logs().join("aksim.log")).unwrap_or_default();
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
        (last, Some(format!("see {}", home.logs().join("aksim.log").display())))
    });
    let code = match status.code() {
        Some(2) => Code::Usage,
        Some(3) => Code::Environment,
        _ => Code::Failure,
    };
    Failure { code, message: format!("aksim did not start ({status}): {}", message.trim_end()), hint }
}

/// A spinner with the time and the last line of a build; hidden where stderr is no terminal.
fn progress() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(120));
    progress
}

/// Stops the environment, running or not.
pub async fn down(context: &Context, args: &DownArgs) -> Result<(), Failure> {
    let (_, home, client) = context.running()?;
    match client.command(&Command::Stop).await {
        // One that was killed breaks the connection.
        Ok(_) | Err(ControlError::Http(_)) => wait_until_gone(&home).await?,
        Err(ControlError::NotRunning { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    aksim_simulator::clean_up(&home, &std::env::current_exe()?, args.purge).await?;
    Ok(())
}

/// Waits until the running aksim has let go of the lock.
async fn wait_until_gone(home: &Home) -> Result<(), Failure> {
    let path = home.lock();
    let locked = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::options().write(true).open(path)?;
        // Blocks until the other process ends, whose lock goes with it.
        file.lock()?;
        file.unlock()
    });
    match tokio::time::timeout(DOWN_DEADLINE, locked).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(Ok(Err(error))) => Err(error.into()),
        Ok(Err(panic)) => Err(Failure::new(Code::Bug, panic.to_string())),
        Err(_) => Err(Failure::new(Code::Deadline, "the environment did not stop within 60 s")
            .hint(format!("see {}", home.logs().display()))),
    }
}

/// Shows the dashboard of the running environment, or writes a picture of it.
pub async fn dashboard(context: &Context, args: DashboardArgs) -> Result<(), Failure> {
    let (config, _, client) = context.running()?;
    if let Some(file) = args.svg {
        let svg = screenshot_svg(config.name.as_str(), &client.world().await?, Tab::Flow, 120, 36);
        write_atomic(&file, svg.as_bytes(), PUBLIC)?;
        return output::text(&format!("{} written\n", file.display()));
    }
    let source = ControlSource::connect(client).await?;
    aksim_dashboard::run(source, CancellationToken::new()).await.map_err(Failure::other)
}
