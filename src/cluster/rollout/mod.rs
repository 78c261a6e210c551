//! Waits until workloads are rolled out and a new pod of each answers, and tells each hop as it is passed.
//!
//! Watches tell what changes; besides, everything is looked at again each moment and read again each few
//! seconds, so that nothing depends on a message that came. Hops carry the moment their evidence arrived here,
//! as the API's own times have whole seconds only.

mod answer;
mod endpoint;
mod observed;
mod waited;

use super::{
    pod_failure,
    workload::{Failure, Progress, Workload},
};
use aksim_model::journey::Hop;
use aksim_runtime::net::SharedDialer;
use answer::Answer;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::Client;
use observed::Observed;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use waited::Waited;

/// How often is looked, and asked again, whether or not anything was heard.
const LOOK: Duration = Duration::from_millis(500);
/// After how many looks everything is read again.
const LOOKS_PER_READ: u32 = 8;

/// A workload to wait for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which.
    pub workload: Workload,
    /// Its `metadata.generation` after the apply.
    pub generation: i64,
    /// How often a container may end before it counts as a failure.
    pub restarts: i32,
}

/// Why a new version does not answer.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// A workload cannot come up.
    #[error("{evidence}")]
    Failed {
        /// Which.
        workload: Workload,
        /// Reason, message and last log lines.
        evidence: String,
    },
    /// Time is over.
    #[error("not rolled out within {seconds} s: {state}")]
    Deadline {
        /// The deadline.
        seconds: u64,
        /// What it was waiting for.
        state: String,
    },
    /// A newer change took over.
    #[error("superseded")]
    Cancelled,
}

/// What a rollout tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// A hop is passed for the first time.
    Passed {
        /// Place of its target in the list.
        target: usize,
        /// Which hop.
        hop: Hop,
        /// When its evidence arrived.
        at: Timestamp,
        /// The evidence.
        detail: String,
    },
    /// All that is waited for of a target is there.
    RolledOut {
        /// Place of the target in the list.
        target: usize,
        /// What of it was not waited for, and why.
        note: Option<String>,
    },
}

/// Waits for workloads, all at once.
pub struct Rollout<'a> {
    client: &'a Client,
    dialer: &'a SharedDialer,
    waited: Vec<Waited>,
    observed: Observed,
}

impl<'a> Rollout<'a> {
    /// A wait for `targets`; pods are asked through `dialer`.
    pub fn new(client: &'a Client, dialer: &'a SharedDialer, targets: Vec<Target>) -> Self {
        let observed = Observed::of(targets.iter().map(|target| target.workload.clone()).collect());
        Self { client, dialer, waited: targets.into_iter().map(Waited::new).collect(), observed }
    }

    /// Waits until every workload is rolled out and a pod of each new version that a Service selects has
    /// answered.
    ///
    /// # Errors
    /// [`RolloutError`]; within moments when one cannot come up.
    pub async fn wait(
        mut self,
        deadline: Duration,
        cancel: &CancellationToken,
        mut tell: impl FnMut(Told) + Send,
    ) -> Result<(), RolloutError> {
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(RolloutError::Cancelled),
            ended = tokio::time::timeout(deadline, self.run(&mut tell)) => ended,
        };
        ended.unwrap_or_else(|_| Err(RolloutError::Deadline { seconds: deadline.as_secs(), state: self.state() }))
    }

    async fn run(&mut self, tell: &mut (impl FnMut(Told) + Send)) -> Result<(), RolloutError> {
        let mut seen = self.observed.watch(self.client);
        let mut clock = tokio::time::interval(LOOK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked: FuturesUnordered<BoxFuture<'a, (usize, Answer)>> = FuturesUnordered::new();
        let mut looks = 0u32;
        while !self.look(tell).await? {
            self.ask(&asked);
            tokio::select! {
                Some(seen) = seen.next() => self.observed.take(seen),
                Some((target, answer)) = asked.next() => self.waited[target].hear(answer, target, tell),
                _ = clock.tick() => {
                    looks = looks.wrapping_add(1);
                    self.waited.iter_mut().for_each(Waited::tick);
                    if looks.is_multiple_of(LOOKS_PER_READ) {
                        self.observed.read(self.client).await;
                    }
                }
            }
        }
        self.told_ready(tell);
        Ok(())
    }

    /// Asks those whose turn it is, one question a target at a time.
    fn ask(&mut self, asked: &FuturesUnordered<BoxFuture<'a, (usize, Answer)>>) {
        for (index, waited) in self.waited.iter_mut().enumerate() {
            if let Some(question) = waited.question() {
                let dialer = self.dialer;
                asked.push(async move { (index, question.ask(dialer).await) }.boxed());
            }
        }
    }

    /// Judges every workload as it is now; whether all are done.
    async fn look(&mut self, tell: &mut (impl FnMut(Told) + Send)) -> Result<bool, RolloutError> {
        let mut failed = None;
        for (index, waited) in self.waited.iter_mut().enumerate() {
            if let Progress::Failed(failure) = waited.look(index, &self.observed, tell) {
                failed = Some((waited.target.workload.clone(), failure));
                break;
            }
        }
        match failed {
            Some((workload, failure)) => {
                let evidence = evidence(self.client, &workload, &failure).await;
                Err(RolloutError::Failed { workload, evidence })
            }
            None => Ok(self.waited.iter().all(Waited::is_done)),
        }
    }

    /// Where no Service leads to anything of what was deployed, being there is all there is to be served.
    fn told_ready(&self, tell: &mut (impl FnMut(Told) + Send)) {
        if self.waited.iter().any(|waited| waited.has_passed(Hop::Served)) {
            return;
        }
        if let Some((target, detail)) =
            self.waited.iter().enumerate().find_map(|(index, waited)| Some((index, waited.without_service()?)))
        {
            tell(Told::Passed { target, hop: Hop::Served, at: Timestamp::now(), detail });
        }
    }

    /// What is waited for, for a person.
    fn state(&self) -> String {
        let unfinished = self.waited.iter().filter(|waited| !waited.is_done());
        let mut state: Vec<String> =
            unfinished.map(|waited| format!("{}: {}", waited.target.workload, waited.state())).collect();
        state.extend(self.observed.trouble().map(|trouble| format!("the cluster says: {trouble}")));
        state.join("; ")
    }
}

/// The failure with what shows it, ready to print.
async fn evidence(client: &Client, workload: &Workload, failure: &Failure) -> String {
    let said = (!failure.message.is_empty()).then(|| format!("{workload}: {}", failure.message));
    let pod = match &failure.pod {
        Some(pod) => Some(pod_failure::evidence(client, &workload.namespace, pod).await),
        None => None,
    };
    said.into_iter().chain(pod).collect::<Vec<_>>().join("\n")
}
