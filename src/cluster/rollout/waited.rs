//! One workload that is waited for: which hops it has passed, whom to ask, and when it is done.

use super::{
    Target, Told,
    answer::{Answer, Question},
    endpoint::{self, Lead},
    observed::{Known, Observed},
};
use crate::workload::{Failure, Membership, Progress, View, by_template};
use aksim_model::{journey::Hop, pod::is_ready};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::BTreeSet;

/// For how many moments something that nobody asks must be there before it counts: a program that ends at once
/// is ready until it has.
const MOMENTS: u32 = 2;

/// Whether a new pod has answered.
#[derive(Debug)]
enum Asked {
    /// Nobody is being asked; the next may be.
    Free,
    /// A question is under way.
    UnderWay,
    /// The last one was not answered in HTTP; the next when it is time.
    Later,
    /// There is an answer, or nobody to ask.
    Answered,
}

/// A workload that is waited for.
pub(super) struct Waited {
    pub target: Target,
    passed: BTreeSet<Hop>,
    progress: Progress,
    asked: Asked,
    /// How often has been asked: pods take turns.
    turns: usize,
    /// Whom to ask.
    questions: Vec<Question>,
    /// New pods that are ready.
    ready: BTreeSet<String>,
    /// Pod that accepts connections and speaks no HTTP, and what was seen of it.
    connected: Option<(String, String)>,
    /// Why there is no answer, as far as is known.
    silence: Option<String>,
    /// Whether a Service leads to a new pod; unknown until the Services are.
    has_service: Option<bool>,
    /// For how many moments it has been complete.
    moments: u32,
    done: bool,
}

impl Waited {
    pub fn new(target: Target) -> Self {
        let asked = if target.workload.kind.serves { Asked::Free } else { Asked::Answered };
        Self {
            target,
            passed: BTreeSet::new(),
            progress: Progress::Waiting("the cluster has not told of it".into()),
            asked,
            turns: 0,
            questions: Vec::new(),
            ready: BTreeSet::new(),
            connected: None,
            silence: None,
            has_service: None,
            moments: 0,
            done: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    pub fn has_passed(&self, hop: Hop) -> bool {
        self.passed.contains(&hop)
    }

    /// What is waited for.
    pub fn state(&self) -> String {
        match (&self.progress, &self.silence) {
            (Progress::Waiting(message), _) => message.clone(),
            (_, Some(silence)) => format!("it is rolled out, but does not answer: {silence}"),
            (_, None) => "it is rolled out, but no endpoint of it is there to be asked".into(),
        }
    }

    /// What there is instead of an answer, where no Service leads to what is done.
    pub fn without_service(&self) -> Option<String> {
        let kind = self.target.workload.kind;
        let is_there = matches!(&self.progress, Progress::Complete { note: None, .. });
        if !is_there || self.has_service == Some(true) || kind.membership == Membership::Nobody {
            return None;
        }
        let what = if kind.serves { "ready; no Service leads to it" } else { "complete" };
        Some(format!("{}: {what}", self.target.workload))
    }

    /// Reads hops and progress off the objects known now.
    pub fn look(&mut self, index: usize, observed: &Observed, tell: &mut impl FnMut(Told)) -> Progress {
        self.progress = self.judge(index, observed, tell);
        if self.done {
            // What has been done stays so, unless it breaks while others are waited for.
            return self.progress.clone();
        }
        let Progress::Complete { pods, note } = self.progress.clone() else {
            self.moments = 0;
            return self.progress.clone();
        };
        if self.has_answered(pods, index, tell) {
            self.done = true;
            tell(Told::RolledOut { target: index, note });
        }
        self.progress.clone()
    }

    fn judge(&mut self, index: usize, observed: &Observed, tell: &mut impl FnMut(Told)) -> Progress {
        let kind = self.target.workload.kind;
        let (object, is_there) = match observed.workload(index) {
            Known::NotYet => return self.progress.clone(),
            Known::There(object) => (object, true),
            // A Job may be deleted as soon as it is complete.
            Known::Gone(Some(last)) if !kind.serves => (last, false),
            Known::Gone(_) => return Progress::Failed(deleted()),
        };
        let namespace = &self.target.workload.namespace;
        let pods = observed.pods_of(namespace).filter(|pod| !kind.serves || is_judged(pod, observed));
        let (new, old) = by_template(kind, object, &observed.histories(namespace), pods);
        for pod in &new {
            self.read_hops(pod, index, observed, tell);
        }
        self.find_endpoints(&new, index, observed, tell);
        let restarts = self.target.restarts;
        let allowed = |pod: &Pod| restarts.saturating_add(observed.first(pod).restarts);
        let view = View { object, generation: self.target.generation, new, old, allowed: &allowed };
        match view.judge(kind) {
            Progress::Waiting(_) if !is_there && !self.done => Progress::Failed(deleted()),
            other => other,
        }
    }

    fn read_hops(&mut self, pod: &Pod, index: usize, observed: &Observed, tell: &mut impl FnMut(Told)) {
        let name = pod.name_any();
        if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_ref()) {
            self.pass(Hop::Scheduled, index, || format!("{name} to {node}"), tell);
        }
        let mut containers = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let runs = containers.any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()));
        if runs || observed.is_pulled(pod) {
            self.pass(Hop::Pulled, index, || name.clone(), tell);
        }
        if runs {
            self.pass(Hop::Started, index, || name.clone(), tell);
        }
        if is_ready(pod) {
            self.pass(Hop::Ready, index, || name.clone(), tell);
        }
    }

    fn pass(&mut self, hop: Hop, target: usize, detail: impl FnOnce() -> String, tell: &mut impl FnMut(Told)) {
        if self.passed.insert(hop) {
            tell(Told::Passed { target, hop, at: Timestamp::now(), detail: detail() });
        }
    }

    /// Finds out where Services lead to the new pods that are ready.
    fn find_endpoints(&mut self, new: &[&Pod], index: usize, observed: &Observed, tell: &mut impl FnMut(Told)) {
        let ready: Vec<&Pod> = new.iter().copied().filter(|pod| is_ready(pod)).collect();
        self.ready = ready.iter().map(|pod| pod.name_any()).collect();
        self.questions.clear();
        if !self.target.workload.kind.serves || !observed.services_known.contains(&self.target.workload.namespace) {
            return;
        }
        let mut has_service = false;
        for pod in ready {
            match endpoint::lead(pod, observed) {
                Lead::NoService => continue,
                Lead::NoEndpoint { why } => self.silence = Some(why),
                Lead::NothingToAsk { service, detail } => {
                    self.pass(Hop::Endpoint, index, || service, tell);
                    self.connected = Some((pod.name_any(), detail));
                }
                Lead::Ask { service, question } => {
                    self.pass(Hop::Endpoint, index, || service, tell);
                    self.questions.push(question);
                }
            }
            has_service = true;
        }
        self.has_service = Some(has_service);
    }

    /// Whom to ask now, if anybody.
    pub fn question(&mut self) -> Option<Question> {
        if !matches!(self.asked, Asked::Free) || self.questions.is_empty() {
            return None;
        }
        let question = self.questions[self.turns % self.questions.len()].clone();
        self.turns = self.turns.wrapping_add(1);
        self.asked = Asked::UnderWay;
        Some(question)
    }

    /// A moment has passed: it is time to ask once more.
    pub fn tick(&mut self) {
        self.moments = self.moments.saturating_add(1);
        if matches!(self.asked, Asked::Later) {
            self.asked = Asked::Free;
        }
    }

    /// Takes an answer in.
    pub fn hear(&mut self, answer: Answer, index: usize, tell: &mut impl FnMut(Told)) {
        self.asked = Asked::Later;
        match answer {
            Answer::Http { detail } => {
                self.asked = Asked::Answered;
                self.pass(Hop::Served, index, || detail, tell);
            }
            Answer::Connected { pod, detail } => self.connected = Some((pod, detail)),
            Answer::Refused { detail } => {
                self.connected = None;
                self.silence = Some(detail);
            }
        }
    }

    /// Whether a new pod has answered, now that `pods` of them are there. One that is ready and accepts
    /// connections answers by that, whatever it speaks.
    fn has_answered(&mut self, pods: i64, index: usize, tell: &mut impl FnMut(Told)) -> bool {
        if matches!(self.asked, Asked::Answered) || pods == 0 {
            return true;
        }
        // The object may be told of before its pods.
        if self.ready.is_empty() {
            return false;
        }
        match (&self.connected, self.has_service) {
            (_, Some(false)) => self.moments >= MOMENTS,
            (Some((pod, detail)), Some(true)) if self.ready.contains(pod) => {
                let detail = detail.clone();
                self.asked = Asked::Answered;
                self.pass(Hop::Served, index, || detail, tell);
                true
            }
            _ => false,
        }
    }
}

fn deleted() -> Failure {
    Failure { message: "it was deleted".into(), pod: None }
}

/// Whether a pod says anything of what is there now: one that had failed before the wait has been replaced.
fn is_judged(pod: &Pod, observed: &Observed) -> bool {
    pod.owner_references().is_empty() || !observed.first(pod).failed
}

#[cfg(test)]
#[path = "waited_tests.rs"]
mod tests;
