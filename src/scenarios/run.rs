//! Carries a scenario out: its steps in order, then everything put back.

use super::{
    CheckReport, Environment, Fault, FaultReport, LoadReport, Outcome, Report, Scenario, ScenarioError, Step,
    StepReport,
    faults::Victim,
    rotation::Rotation,
    traffic::{Load, Record},
    undo::Undo,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What checks get once the step cannot pass any more.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// How a scenario is run.
pub struct Options<'a> {
    /// Apply the solutions instead of waiting for somebody to.
    pub auto: bool,
    /// Instead of the scenario's seed.
    pub seed: Option<u64>,
    /// Ends it early; what was changed is put back all the same.
    pub stop: CancellationToken,
    /// Told of what happens, for people.
    pub tell: &'a (dyn Fn(String) + Sync),
}

/// A fault that was injected.
struct Injected {
    at: Instant,
    victim: Victim,
    healed: bool,
}

/// A scenario on its way.
pub struct Run<'a> {
    /// What it works on.
    pub environment: &'a Environment,
    /// When it began.
    pub begun_at: Timestamp,
    /// Loads by name, stopped ones too.
    pub loads: Mutex<BTreeMap<String, Load>>,
    /// Who was in the rotation of which Service, when.
    pub rotation: Rotation,
    scenario: &'a Scenario,
    seed: u64,
    begun: Instant,
    step: Mutex<Instant>,
    undo: Mutex<Vec<Undo>>,
    injected: Mutex<BTreeMap<String, Injected>>,
    secrets: Mutex<BTreeMap<String, String>>,
    connections: Mutex<BTreeMap<String, u64>>,
    rng: Mutex<StdRng>,
}

/// Carries `scenario` out.
///
/// # Errors
/// [`ScenarioError::Needs`] when the environment lacks what it needs, [`ScenarioError::Control`] when it does
/// not run. What fails later is in the report.
pub async fn run(
    environment: &Environment,
    scenario: &Scenario,
    options: &Options<'_>,
) -> Result<Report, ScenarioError> {
    let run = Run::new(environment, scenario, options.seed.unwrap_or(scenario.seed));
    run.check_needs().await?;
    let mut following = JoinSet::new();
    following.spawn(run.rotation.clone().follow(environment.client.clone()));
    let mut steps = Vec::new();
    let mut failed = false;
    for step in &scenario.steps {
        if failed || options.stop.is_cancelled() {
            steps.push(skipped(step));
            continue;
        }
        (options.tell)(format!("{}: {}", step.id, step.text.trim()));
        let report = run.step(step, options).await;
        failed = report.outcome == Outcome::Failed;
        steps.push(report);
    }
    let mut problems = run.put_back().await;
    let interrupted = options.stop.is_cancelled();
    problems.extend(interrupted.then(|| "it was interrupted".to_owned()));
    let seconds = run.begun.elapsed().as_secs_f64();
    problems.extend(over_budget(scenario, &steps, seconds));
    following.shutdown().await;
    let outcome = if failed || !problems.is_empty() { Outcome::Failed } else { Outcome::Passed };
    Ok(run.report(outcome, seconds, steps, problems))
}

fn skipped(step: &Step) -> StepReport {
    StepReport {
        id: step.id.clone(),
        text: step.text.clone(),
        outcome: Outcome::Skipped,
        seconds: 0.0,
        done: Vec::new(),
        checks: Vec::new(),
    }
}

/// Budgets that were passed over.
fn over_budget(scenario: &Scenario, steps: &[StepReport], seconds: f64) -> Vec<String> {
    let took = |of: &str| match of {
        "scenario" => Some(seconds),
        id => steps.iter().find(|s| s.id == id && s.outcome != Outcome::Skipped).map(|s| s.seconds),
    };
    let over = scenario.budgets.iter().filter_map(|budget| {
        let (seconds, most) = (took(&budget.of)?, budget.at_most.0.as_secs_f64());
        (seconds > most).then(|| format!("{} took {seconds:.1} s; its budget is {most:.1} s", budget.of))
    });
    over.collect()
}

/// Gives one hint after the other, evenly over the time that the step has. Never ends.
async fn give_hints(step: &Step, options: &Options<'_>) {
    if !options.auto && !step.solution.is_empty() {
        let pause = step.within / u32::try_from(step.hints.len() + 1).unwrap_or(u32::MAX);
        for hint in &step.hints {
            tokio::time::sleep(pause).await;
            (options.tell)(format!("  hint: {hint}"));
        }
    }
    std::future::pending().await
}

impl<'a> Run<'a> {
    fn new(environment: &'a Environment, scenario: &'a Scenario, seed: u64) -> Self {
        Self {
            environment,
            begun_at: Timestamp::now(),
            loads: Mutex::default(),
            rotation: Rotation::default(),
            scenario,
            seed,
            begun: Instant::now(),
            step: Mutex::new(Instant::now()),
            undo: Mutex::default(),
            injected: Mutex::default(),
            secrets: Mutex::default(),
            connections: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    /// Puts something back when the run ends.
    pub fn undo_later(&self, undo: Undo) {
        self.undo.lock().push(undo);
    }

    /// Values that are secret, by value, with a name for people.
    pub fn remember_secrets(&self, values: BTreeMap<String, String>) {
        self.secrets.lock().extend(values);
    }

    /// All values that were secret at any time of the run.
    pub fn secrets(&self) -> BTreeMap<String, String> {
        self.secrets.lock().clone()
    }

    /// Remembers the number of the last connection by a password that is about to be rotated.
    pub fn remember_connection(&self, service: &str, number: u64) {
        self.connections.lock().insert(service.to_owned(), number);
    }

    /// That number.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when the password was not rotated.
    pub fn last_connection(&self, service: &str) -> Result<u64, ScenarioError> {
        let found = self.connections.lock().get(service).copied();
        found.ok_or_else(|| ScenarioError::Missing(format!("the password of {service} was not rotated")))
    }

    /// When the step under way began.
    pub fn step_begun(&self) -> Instant {
        *self.step.lock()
    }

    /// What became of the requests of a load.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when there is no such load.
    pub fn record(&self, load: &str) -> Result<Record, ScenarioError> {
        let loads = self.loads.lock();
        let found = loads.get(load).map(|l| l.record().clone());
        found.ok_or_else(|| ScenarioError::Missing(format!("there is no load {load:?}")))
    }

    /// A fault of the scenario.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when there is no such fault.
    pub fn fault(&self, name: &str) -> Result<&'a Fault, ScenarioError> {
        let missing = || ScenarioError::Missing(format!("the scenario has no fault {name:?}"));
        self.scenario.faults.get(name).ok_or_else(missing)
    }

    /// When a fault comes, after its step's injection began.
    pub fn delay(&self, fault: &Fault) -> Duration {
        fault.after + fault.jitter.mul_f64(self.rng.lock().random::<f64>())
    }

    /// Breaks something now; says what.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub async fn inject(&self, name: &str) -> Result<String, ScenarioError> {
        let fault = self.fault(name)?;
        // A generator of its own a fault, so that no lock is held while the cluster is asked.
        let mut rng = StdRng::seed_from_u64(self.rng.lock().random());
        let victim = fault.fault.choose(self, &mut rng).await?;
        let at = Instant::now();
        let said = format!("{} {}", fault.kind, victim.what);
        self.injected.lock().insert(name.to_owned(), Injected { at, victim: victim.clone(), healed: false });
        fault.fault.inject(self, &victim).await?;
        Ok(said)
    }

    /// Makes something whole that was broken.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub async fn heal(&self, name: &str) -> Result<String, ScenarioError> {
        let victim = self.injected.lock().get(name).map(|i| i.victim.clone());
        let victim = victim.ok_or_else(|| ScenarioError::Missing(format!("{name:?} was not injected")))?;
        self.fault(name)?.fault.heal(self, &victim).await?;
        if let Some(injected) = self.injected.lock().get_mut(name) {
            injected.healed = true;
        }
        Ok(format!("healed {}", victim.what))
    }

    /// Who was met by a fault, and when.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when it was not injected.
    pub fn victim(&self, fault: &str) -> Result<(String, Instant), ScenarioError> {
        let injected = self.injected.lock();
        let found = injected.get(fault).map(|i| (i.victim.name.clone(), i.at));
        found.ok_or_else(|| ScenarioError::Missing(format!("{fault:?} was not injected")))
    }

    async fn check_needs(&self) -> Result<(), ScenarioError> {
        let world = self.environment.control.world().await?;
        for service in &self.scenario.environment.services {
            let known = world.services.iter().find(|(name, _)| name.as_str() == service);
            if known.is_none_or(|(_, status)| status.state != aksim_model::event::ServiceState::Ready) {
                let what = format!("service {service} to be ready");
                let hint = "run it in the sample shop, or name the service in aksim.toml; `aksim status` shows all";
                return Err(ScenarioError::Needs { what, hint: hint.into() });
            }
        }
        let nodes: Api<Node> = Api::all(self.environment.client.clone());
        let nodes = nodes.list(&ListParams::default()).await.map_err(ScenarioError::cluster("nodes"))?.items.len();
        let wanted = self.scenario.environment.nodes;
        if nodes < wanted {
            let what = format!("{wanted} nodes, and there are {nodes}");
            let hint = format!("give a node pool `count = {wanted}` in aksim.toml");
            return Err(ScenarioError::Needs { what, hint });
        }
        Ok(())
    }

    async fn step(&self, step: &Step, options: &Options<'_>) -> StepReport {
        let begun = Instant::now();
        *self.step.lock() = begun;
        let mut report = StepReport { outcome: Outcome::Passed, ..skipped(step) };
        let ended = tokio::select! {
            () = self.work(step, options, &mut report) => true,
            () = options.stop.cancelled() => false,
        };
        if !ended || report.checks.iter().any(|c| !c.holds) {
            report.outcome = Outcome::Failed;
        }
        report.seconds = begun.elapsed().as_secs_f64();
        report
    }

    /// Actions, then checks, while hints are given to who takes the lab.
    async fn work(&self, step: &Step, options: &Options<'_>, report: &mut StepReport) {
        let solution = if options.auto { &step.solution[..] } else { &[] };
        for action in step.action.iter().chain(solution) {
            match action.perform(self).await {
                Ok(said) => {
                    (options.tell)(format!("  {said}"));
                    report.done.push(said);
                }
                Err(error) => {
                    report.done.push(format!("failed: {error}"));
                    report.outcome = Outcome::Failed;
                    return;
                }
            }
        }
        let checks = async {
            let mut deadline = tokio::time::Instant::now() + step.within;
            for check in &step.checks {
                let verdict = check.hold(self, deadline).await;
                if verdict.lost {
                    // The step has failed: the other checks are looked at once, for the report.
                    deadline = tokio::time::Instant::now() + LAST_LOOK;
                }
                let mark = if verdict.holds { "ok" } else { "FAILED" };
                (options.tell)(format!("  {mark}: {}: {}", check.claim(), verdict.found));
                report.checks.push(CheckReport { claim: check.claim(), holds: verdict.holds, found: verdict.found });
            }
        };
        tokio::select! {
            () = checks => {}
            () = give_hints(step, options) => {}
        }
    }

    /// Stops what still runs, heals what is broken, puts back what was changed, newest first.
    async fn put_back(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let loads = std::mem::take(&mut *self.loads.lock());
        for (name, mut load) in loads {
            load.stop().await;
            self.loads.lock().insert(name, load);
        }
        let broken: Vec<String> =
            self.injected.lock().iter().filter(|(_, i)| !i.healed).map(|(name, _)| name.clone()).collect();
        for name in broken {
            if let Err(error) = self.heal(&name).await {
                problems.push(format!("{name} is not healed: {error}"));
            }
        }
        let changes = std::mem::take(&mut *self.undo.lock());
        for change in changes.into_iter().rev() {
            if let Err(error) = change.perform(self.environment).await {
                problems.push(error.to_string());
            }
        }
        problems
    }

    fn report(&self, outcome: Outcome, seconds: f64, steps: Vec<StepReport>, problems: Vec<String>) -> Report {
        let loads = self.loads.lock();
        let loads = loads.iter().map(|(n, l)| LoadReport { name: n.clone(), numbers: l.record().summary(None) });
        let faults = self.injected.lock();
        let faults = faults.iter().map(|(name, injected)| FaultReport {
            name: name.clone(),
            kind: self.scenario.faults.get(name).map(|f| f.kind.clone()).unwrap_or_default(),
            victim: injected.victim.what.clone(),
            at: (injected.at - self.begun).as_secs_f64(),
        });
        Report {
            scenario: self.scenario.name.clone(),
            title: self.scenario.title.clone(),
            outcome,
            seed: self.seed,
            seconds,
            steps,
            faults: faults.collect(),
            loads: loads.collect(),
            problems,
        }
    }
}
