//! The whole dashboard on a terminal of cells: pictures of it, and what keys do.

use super::{
    App, DashboardSource, Tab,
    app::{Effect, Message, Popup},
    render, run, screenshot_svg,
    tabs::{journeys, pipelines},
    theme::Theme,
};
use aksim_model::{
    command::{Command, CommandReply},
    endpoint::Endpoint,
    event::{ComponentState, Event, EventBody, FlowRow, ServiceState},
    journey::{Hop, JourneyOutcome},
    log::{LogLine, LogQuery},
    pipeline::{PipelineRun, PipelineStage},
    world::World,
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use futures::{StreamExt, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use ratatui::{Terminal, backend::TestBackend};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn ago(ms: i64) -> Timestamp {
    now() - SignedDuration::from_millis(ms)
}

fn endpoint(name: &str, url: &str) -> Endpoint {
    Endpoint { name: name.into(), url: url.into() }
}

/// The shop in the middle of a working day.
fn events() -> Vec<(Timestamp, EventBody)> {
    let component = |name: &str, url: &str| EventBody::Component {
        component: name.into(),
        state: ComponentState::Ready,
        message: String::new(),
        endpoints: if url.is_empty() { vec![] } else { vec![endpoint(name, url)] },
    };
    let service = |name: &str, state, version: &str, message: &str, url: &str| EventBody::Service {
        service: name.into(),
        state,
        version: Some(version.into()),
        message: message.into(),
        endpoints: if url.is_empty() { vec![] } else { vec![endpoint(name, url)] },
    };
    let flow = |row, ok, message: &str| EventBody::Flow { row, ok, message: message.into() };
    let mut events = vec![
        (ago(7_200_000), component("identity", "https://login.localhost:8443")),
        (ago(7_200_000), component("registry", "https://shopacr.localhost:8443")),
        (ago(7_200_000), component("database", "127.0.0.1:43306")),
        (ago(7_199_000), component("kubernetes", "https://127.0.0.1:46443")),
        (ago(7_199_000), component("node", "")),
        (ago(7_198_000), component("ingress", "https://localhost:8443")),
        (ago(7_000_000), service("catalog", ServiceState::Ready, "sha256:3fa9c1d27b60e5aa01", "", "")),
        (ago(7_000_000), service("orders", ServiceState::Ready, "sha256:77b1d0c9a3ee41", "", "")),
        (
            ago(6_900_000),
            service("admin", ServiceState::Ready, "sha256:a0a1b2c3d4e5f6", "", "https://admin.shop.localhost:8443"),
        ),
        (
            ago(6_900_000),
            service("web", ServiceState::Ready, "sha256:9d8c7b6a5f4e3d", "", "https://shop.localhost:8443"),
        ),
        (ago(95_000), flow(FlowRow::Secure, true, "ada signed in to web")),
        (ago(60_000), flow(FlowRow::Reach, true, "GET shop.localhost/ 200")),
        (ago(59_000), flow(FlowRow::Store, true, "orders connected as orders")),
        (ago(50_000), flow(FlowRow::Package, true, "catalog@sha256:3fa9c1d27b60 pushed")),
        (ago(49_000), flow(FlowRow::Deploy, true, "catalog applied")),
    ];
    events.extend(journey(
        "11111111aaaa",
        "catalog",
        "catalog/src/api.rs",
        52_000,
        &[
            (Hop::Saved, 0, ""),
            (Hop::Built, 1840, "catalog@sha256:3fa9c1d27b60"),
            (Hop::Pushed, 1890, ""),
            (Hop::Applied, 1912, ""),
            (Hop::Scheduled, 1916, "aks-nodepool1-0"),
            (Hop::Pulled, 1950, ""),
            (Hop::Started, 1961, "catalog-6d5f-x2x"),
            (Hop::Ready, 2070, ""),
            (Hop::Served, 2083, "200 by catalog-6d5f-x2x"),
        ],
        JourneyOutcome::Served,
    ));
    events.extend(journey(
        "22222222bbbb",
        "web",
        "web/static/style.css",
        30_000,
        &[(Hop::Saved, 0, ""), (Hop::Synced, 38, "2 pods"), (Hop::Served, 61, "200")],
        JourneyOutcome::Served,
    ));
    let reason = "error[E0425]: cannot find value `prise` in this scope\n --> orders/src/pricing.rs:31:9";
    events.extend(journey(
        "33333333cccc",
        "orders",
        "orders/src/pricing.rs",
        8_000,
        &[(Hop::Saved, 0, "")],
        JourneyOutcome::Failed(reason.into()),
    ));
    let stages = [("Build", "Succeeded"), ("Test", "Failed"), ("Deploy", "Skipped")];
    events.push((ago(400_000), pipeline_run(7, "Faster checkout", 480_000, Some("Failed"), &stages)));
    let stages = [("Build", "Succeeded"), ("Test", "Succeeded"), ("Deploy", "")];
    events.push((ago(20_000), pipeline_run(8, "Faster checkout, with its test", 75_000, None, &stages)));
    events.push((ago(6_000), service("orders", ServiceState::Failed, "sha256:0", &format!("\u{1b}[31m{reason}"), "")));
    events.push((
        ago(4_000),
        EventBody::Warning {
            subject: "cgroups".into(),
            message: "no memory controller: limits are not enforced".into(),
            hint: Some("run as root".into()),
        },
    ));
    events
}

/// A run that was queued `began` milliseconds ago; a stage without result goes on.
fn pipeline_run(id: u64, message: &str, began: i64, result: Option<&str>, stages: &[(&str, &str)]) -> EventBody {
    let state = |ended: bool| if ended { "completed" } else { "inProgress" }.to_owned();
    let stage = |(name, result): &(&str, &str)| PipelineStage {
        name: (*name).into(),
        state: state(!result.is_empty()),
        result: (!result.is_empty()).then(|| (*result).into()),
    };
    EventBody::PipelineRun {
        run: PipelineRun {
            id,
            name: format!("20260301.{id}"),
            pipeline: "shop".into(),
            branch: "main".into(),
            commit: "3fa9c1d27b60e5aa013fa9c1d27b60e5aa010000".into(),
            message: message.into(),
            reason: "IndividualCI".into(),
            state: state(result.is_some()),
            result: result.map(str::to_owned),
            queued: ago(began),
            finished: result.map(|_| ago(began - 65_000)),
            stages: stages.iter().map(stage).collect(),
        },
    }
}

fn journey(
    id: &str,
    service: &str,
    cause: &str,
    began: i64,
    hops: &[(Hop, i64, &str)],
    outcome: JourneyOutcome,
) -> Vec<(Timestamp, EventBody)> {
    let started = ago(began);
    let mut events = vec![(
        started,
        EventBody::JourneyStarted { journey: id.into(), service: service.into(), cause: cause.into(), started },
    )];
    for (hop, ms, detail) in hops {
        let passed = started + SignedDuration::from_millis(*ms);
        let body = EventBody::JourneyHop { journey: id.into(), hop: *hop, passed, detail: (*detail).into() };
        events.push((passed, body));
    }
    events.push((started, EventBody::JourneyEnded { journey: id.into(), outcome }));
    events
}

fn world() -> World {
    let mut world = World::default();
    for (seq, (at, body)) in events().into_iter().enumerate() {
        world.apply(&Event { seq: seq as u64 + 1, at, body });
    }
    world
}

fn log_lines() -> Vec<LogLine> {
    (0..40)
        .map(|n| LogLine {
            service: ["web", "catalog", "orders"][n % 3].into(),
            pod: format!("pod-{n}"),
            at: ago(40_000 - n as i64 * 1000),
            line: format!(
                "{{\"level\":\"INFO\",\"path\":\"/api/products/{n}\",\"status\":{}}}",
                if n == 31 { 503 } else { 200 }
            ),
        })
        .collect()
}

fn app() -> App {
    let mut app = App::new("shop", Arc::new(world()), now(), Theme::new(true, true));
    app.update(Message::Logs(log_lines()));
    app
}

fn drawn(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| render(app, frame)).unwrap();
    terminal.backend().to_string()
}

fn press(app: &mut App, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    for key in keys.split_whitespace() {
        let (code, modifiers) = match key {
            "enter" => (KeyCode::Enter, KeyModifiers::NONE),
            "esc" => (KeyCode::Esc, KeyModifiers::NONE),
            "tab" => (KeyCode::Tab, KeyModifiers::NONE),
            "space" => (KeyCode::Char(' '), KeyModifiers::NONE),
            _ if key.len() > 1 && key.starts_with('^') => {
                (KeyCode::Char(key.chars().nth(1).unwrap()), KeyModifiers::CONTROL)
            }
            word => {
                for c in word.chars() {
                    effects.extend(app.update(Message::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE))));
                }
                continue;
            }
        };
        effects.extend(app.update(Message::Key(KeyEvent::new(code, modifiers))));
    }
    effects
}

#[test]
fn every_tab_in_three_sizes() {
    for (width, height) in [(120, 40), (80, 24), (40, 12)] {
        for tab in Tab::ALL {
            let mut app = app();
            app.show(tab);
            insta::assert_snapshot!(format!("{}-{width}x{height}", tab.title()), drawn(&app, width, height));
        }
    }
}

#[test]
fn without_colour_and_unicode() {
    let mut app = app();
    app.theme = Theme::new(false, false);
    let picture = drawn(&app, 80, 24);
    assert!(picture.is_ascii(), "{picture}");
    insta::assert_snapshot!(picture);
}

#[test]
fn details_and_popups() {
    let mut app = app();
    press(&mut app, "2 j enter");
    insta::assert_snapshot!("failed-service", drawn(&app, 80, 24));
    press(&mut app, "esc 4 j j");
    insta::assert_snapshot!("rebuilt-journey", drawn(&app, 120, 26));
    press(&mut app, "esc 1 o");
    insta::assert_snapshot!("addresses", drawn(&app, 80, 24));
    press(&mut app, "esc :stop enter");
    insta::assert_snapshot!("confirm", drawn(&app, 80, 24));
}

#[test]
fn never_panics_whatever_the_size() {
    for tab in Tab::ALL {
        let widths = [1, 2, 19, 20, 25, 40, 59, 60, 71, 72, 90, 160];
        let heights = [1, 3, 4, 5, 6, 9, 12, 13, 14, 16, 20, 21, 24, 33, 34, 60];
        for (width, height) in widths.into_iter().flat_map(|w| heights.map(|h| (w, h))) {
            let mut app = app();
            app.show(tab);
            drawn(&app, width, height);
            press(&mut app, "enter o");
            drawn(&app, width, height);
        }
    }
    drawn(&App::new("", Arc::default(), now(), Theme::new(true, true)), 80, 24);
}

#[test]
fn keys_move_between_tabs() {
    let mut app = app();
    press(&mut app, "3");
    assert_eq!(app.tab, Tab::Logs);
    press(&mut app, "tab tab tab tab");
    assert_eq!(app.tab, Tab::Flow);
    press(&mut app, "?");
    assert_eq!(app.tab, Tab::Help);
    assert_eq!(press(&mut app, "q"), [Effect::Quit]);
    assert_eq!(press(&mut app, "^c"), [Effect::Quit]);
}

#[test]
fn triggers_the_selected_service_and_nothing_by_accident() {
    let trigger = |name: &str| [Effect::Send(Command::Trigger { service: Some(name.into()) })];
    let mut app = app();
    assert_eq!(press(&mut app, "t"), []);
    assert!(app.notice().unwrap().text.contains("select a service"));
    assert_eq!(press(&mut app, "2 t"), trigger("catalog"));
    assert_eq!(press(&mut app, "j j j j j j t"), trigger("web"));
    assert_eq!(press(&mut app, "g t"), trigger("catalog"));
    assert_eq!(press(&mut app, "/ or enter t"), trigger("orders"));
    assert_eq!(press(&mut app, "4 t"), trigger("orders"));
    assert_eq!(press(&mut app, ":tri tab enter"), [Effect::Send(Command::Trigger { service: None })]);
    assert_eq!(press(&mut app, ":trigger space w tab enter"), trigger("web"));
}

#[test]
fn stop_is_asked_about() {
    let mut app = app();
    assert_eq!(press(&mut app, ":stop enter"), []);
    assert!(matches!(app.popup, Some(Popup::Confirm { .. })));
    assert_eq!(press(&mut app, "n"), []);
    assert_eq!(press(&mut app, ":stop enter y"), [Effect::Send(Command::Stop)]);
}

#[test]
fn a_selected_journey_stays_selected() {
    let mut app = app();
    press(&mut app, "4 j");
    assert_eq!(journeys::shown(&app)[journeys::selected(&app)].id.as_str(), "22222222bbbb");
    let mut world = world();
    for (at, body) in journey("44444444dddd", "web", "up", 1000, &[], JourneyOutcome::Superseded) {
        world.apply(&Event { seq: 100, at, body });
    }
    app.update(Message::World(Arc::new(world)));
    assert_eq!(journeys::selected(&app), 2);
    assert_eq!(journeys::shown(&app)[2].id.as_str(), "22222222bbbb");
    press(&mut app, "g");
    assert_eq!(journeys::shown(&app)[journeys::selected(&app)].id.as_str(), "44444444dddd");
}

#[test]
fn a_selected_run_stays_selected_and_is_found() {
    let mut app = app();
    press(&mut app, "5 j");
    assert_eq!(pipelines::shown(&app)[pipelines::selected(&app)].id, 7);
    let mut world = world();
    world.apply(&Event { seq: 100, at: now(), body: pipeline_run(9, "More", 0, None, &[]) });
    app.update(Message::World(Arc::new(world)));
    assert_eq!(pipelines::shown(&app)[pipelines::selected(&app)].id, 7);
    press(&mut app, "/ its space test enter");
    assert_eq!(pipelines::shown(&app).iter().map(|run| run.id).collect::<Vec<_>>(), [8]);
    press(&mut app, "esc :runs enter");
    assert_eq!(app.tab, Tab::Pipelines);
}

#[test]
fn filters_and_commands_explain_themselves() {
    let mut app = app();
    press(&mut app, "2 /zzz");
    assert!(drawn(&app, 80, 24).contains("no service by that name"));
    press(&mut app, "esc");
    assert_eq!(app.filter(), "");
    press(&mut app, ":lgos enter");
    assert_eq!(app.notice().unwrap().text, "no command `lgos`; did you mean `logs`?");
    app.update(Message::Tick(now() + SignedDuration::from_secs(7)));
    assert!(app.notice().is_none());
    press(&mut app, "2 l");
    assert_eq!((app.tab, app.logs.service.as_deref()), (Tab::Logs, Some("catalog")));
    app.update(Message::Lost);
    assert!(drawn(&app, 80, 24).contains("stopped"));
}

#[test]
fn finds_in_logs() {
    let mut app = app();
    press(&mut app, "3 ^f 503 enter");
    assert!(!app.logs.following());
    let picture = drawn(&app, 100, 24);
    let last_row = picture.lines().rev().nth(2).unwrap();
    assert!(last_row.contains("/api/products/31"), "{picture}");
    press(&mut app, "N");
    assert_eq!(app.notice().unwrap().text, "nothing more to find");
    press(&mut app, "G");
    assert!(app.logs.following());
}

#[test]
fn a_picture_is_well_formed_and_repeatable() {
    let world = world();
    let svg = screenshot_svg("shop", &world, Tab::Flow, 100, 32);
    assert_eq!(svg, screenshot_svg("shop", &world, Tab::Flow, 100, 32));
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    assert!(svg.contains("shopacr"));
    assert!(!svg.contains('\u{1b}'));
}

struct FakeSource {
    world: watch::Sender<Arc<World>>,
}

#[async_trait::async_trait]
impl DashboardSource for FakeSource {
    fn environment(&self) -> String {
        "shop".into()
    }
    fn world(&self) -> watch::Receiver<Arc<World>> {
        self.world.subscribe()
    }
    async fn command(&self, command: Command) -> Result<CommandReply, String> {
        Ok(CommandReply { message: format!("{command:?}") })
    }
    fn logs(&self, _: LogQuery) -> BoxStream<'static, LogLine> {
        futures::stream::iter(log_lines()).boxed()
    }
}

#[tokio::test]
async fn the_loop_takes_keys_and_ends_on_quit() {
    use crossterm::event::Event as Input;
    let key = |c| Ok(Input::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)));
    let source = FakeSource { world: watch::Sender::new(Arc::new(world())) };
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let keys = futures::stream::iter([key('2'), key('q')]).chain(futures::stream::pending());
    let end = run::drive(&mut terminal, &source, keys, Theme::new(true, true), CancellationToken::new());
    tokio::time::timeout(std::time::Duration::from_secs(20), end).await.unwrap().unwrap();
    assert!(terminal.backend().to_string().contains("SERVING"), "{}", terminal.backend());
}

#[tokio::test]
async fn the_loop_ends_on_shutdown() {
    let source = FakeSource { world: watch::Sender::new(Arc::default()) };
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let events = futures::stream::pending();
    let end = run::drive(&mut terminal, &source, events, Theme::new(true, true), shutdown);
    tokio::time::timeout(std::time::Duration::from_secs(20), end).await.unwrap().unwrap();
}
