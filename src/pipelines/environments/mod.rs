//! Environments, the approvals that they ask for, and what was deployed to them.

pub(crate) mod lock;

use crate::store::{StoreError, file_error};
use aksim_runtime::files::{PRIVATE, write_atomic};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Checks of an environment (`environments.json` in the state folder, or `[pipelines]` of the project).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Checks {
    /// Somebody must approve each stage that deploys to it.
    pub approval: bool,
    /// Minutes until an approval is refused by itself; 30 days when 0, as in Azure.
    pub timeout_in_minutes: u32,
    /// For who approves.
    pub instructions: String,
}

/// An answer to an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Run.
    pub run: u64,
    /// Stage.
    pub stage: String,
    /// Attempt of the stage.
    pub attempt: u32,
    /// `approved` or `rejected`.
    pub approved: bool,
    /// Who.
    pub by: String,
    /// Comment.
    #[serde(default)]
    pub comment: String,
    /// When.
    pub at: Timestamp,
}

/// A deployment to an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// Run.
    pub run: u64,
    /// Stage.
    pub stage: String,
    /// Job.
    pub job: String,
    /// Result.
    pub result: String,
    /// When it ended.
    pub at: Timestamp,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    checks: BTreeMap<String, Checks>,
    approvals: Vec<Approval>,
    deployments: BTreeMap<String, Vec<Deployed>>,
}

/// How many answers and deployments are remembered.
const REMEMBERED: usize = 1000;

/// The environments of a project.
pub struct Environments {
    path: PathBuf,
    data: Mutex<Data>,
    changed: watch::Sender<u64>,
}

/// How waiting for an approval ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Approved(String),
    /// Do not.
    Rejected(String),
    /// Nobody answered in time.
    TimedOut,
    /// The run was cancelled.
    Cancelled,
}

impl Environments {
    /// Opens `environments.json`; checks given here win.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let data = match std::fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|e| file_error(path)(e.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Data::default(),
            Err(error) => return Err(file_error(path)(error)),
        };
        Ok(Self { path: path.to_owned(), data: Mutex::new(data), changed: watch::Sender::new(0) })
    }

    /// Checks of an environment; none when it has none.
    pub fn checks(&self, environment: &str) -> Checks {
        self.data.lock().checks.get(environment).cloned().unwrap_or_default()
    }

    /// Sets the checks of an environment.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn set_checks(&self, environment: &str, checks: Checks) -> Result<(), StoreError> {
        self.change(|data| {
            data.checks.insert(environment.to_owned(), checks);
        })
    }

    /// All environments: checks and last deployment.
    pub fn list(&self) -> Vec<(String, Checks, Option<Deployed>)> {
        let data = self.data.lock();
        let mut names: Vec<&String> = data.checks.keys().chain(data.deployments.keys()).collect();
        names.sort();
        names.dedup();
        let one = |name: &String| {
            let last = data.deployments.get(name).and_then(|d| d.last().cloned());
            (name.clone(), data.checks.get(name).cloned().unwrap_or_default(), last)
        };
        names.into_iter().map(one).collect()
    }

    /// Answers an approval.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn answer(&self, approval: Approval) -> Result<(), StoreError> {
        self.change(|data| {
            data.approvals.push(approval);
            let over = data.approvals.len().saturating_sub(REMEMBERED);
            data.approvals.drain(..over);
        })
    }

    /// Remembers a deployment.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn deployed(&self, environment: &str, deployed: Deployed) -> Result<(), StoreError> {
        self.change(|data| {
            let list = data.deployments.entry(environment.to_owned()).or_default();
            list.push(deployed);
            let over = list.len().saturating_sub(REMEMBERED);
            list.drain(..over);
        })
    }

    /// Waits until somebody answers for a stage.
    pub async fn wait(
        &self,
        run: u64,
        stage: &str,
        attempt: u32,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Answer {
        let mut changed = self.changed.subscribe();
        let timer = tokio::time::sleep(deadline);
        tokio::pin!(timer);
        loop {
            changed.borrow_and_update();
            let found = self.data.lock().approvals.iter().rev().find_map(|a| {
                let same = a.run == run && a.stage == stage && a.attempt == attempt;
                same.then(|| if a.approved { Answer::Approved(a.by.clone()) } else { Answer::Rejected(a.by.clone()) })
            });
            if let Some(answer) = found {
                return answer;
            }
            tokio::select! {
                () = cancel.cancelled() => return Answer::Cancelled,
                () = &mut timer => return Answer::TimedOut,
                // The sender lives as long as `self`.
                _ = changed.changed() => {}
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Data)) -> Result<(), StoreError> {
        let mut data = self.data.lock();
        let mut next = data.clone();
        change(&mut next);
        let json = serde_json::to_vec_pretty(&next).map_err(|e| file_error(&self.path)(e.into()))?;
        write_atomic(&self.path, &json, PRIVATE).map_err(file_error(&self.path))?;
        *data = next;
        drop(data);
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_ends_the_wait_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("environments.json");
        let environments = Environments::open(&path).unwrap();
        let cancel = CancellationToken::new();
        let answer = |approved| Approval {
            run: 1,
            stage: "Deploy".into(),
            attempt: 1,
            approved,
            by: "olga".into(),
            comment: String::new(),
            at: Timestamp::now(),
        };
        let (waited, ()) = tokio::join!(environments.wait(1, "Deploy", 1, Duration::from_secs(60), &cancel), async {
            environments.answer(Approval { run: 2, ..answer(true) }).unwrap();
            environments.answer(answer(false)).unwrap();
        });
        assert_eq!(waited, Answer::Rejected("olga".into()));
        let again = Environments::open(&path).unwrap();
        assert_eq!(again.wait(1, "Deploy", 1, Duration::ZERO, &cancel).await, Answer::Rejected("olga".into()));
        assert_eq!(again.wait(1, "Deploy", 2, Duration::ZERO, &cancel).await, Answer::TimedOut);
        cancel.cancel();
        assert_eq!(again.wait(1, "Deploy", 2, Duration::from_secs(60), &cancel).await, Answer::Cancelled);
    }
}
