//! Towards the end: preStop, stop signal, grace, kill, final status, removal.

use super::{Done, Ending, Need, Worker};
use crate::kubelet::{
    events::Kind,
    pod::{self, Role},
    slot::Op,
    stopping::{Finish, Stop},
};
use std::{net::IpAddr, time::Duration};
use tokio::time::Instant;

impl Worker {
    /// Why the pod has to end, if it has to.
    pub(super) fn find_ending(&mut self) -> Option<Ending> {
        if *self.gone.borrow() || self.pod.metadata.deletion_timestamp.is_some() {
            return Some(Ending::Deleted);
        }
        if self.ending.is_some() {
            return self.ending.clone();
        }
        let deadline = self.spec.active_deadline_seconds.filter(|_| !self.completed() && !pod::finished(&self.pod))?;
        let status = self.computed.as_ref().or(self.pod.status.as_ref());
        let start = status.and_then(|s| s.start_time.as_ref()).map_or_else(jiff::Timestamp::now, |t| t.0);
        let age = Duration::try_from(jiff::Timestamp::now().duration_since(start)).unwrap_or_default();
        let left = Duration::from_secs(u64::try_from(deadline).unwrap_or(0)).saturating_sub(age);
        if left.is_zero() {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.shared.events.pod(&self.pod, None, Kind::Normal, "DeadlineExceeded", message.clone());
            return Some(Ending::Failed("DeadlineExceeded", message));
        }
        self.wake_at(Instant::now() + left);
        None
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.ending_token.cancel();
        if self.ending.is_none() {
            // Liveness and startup are of no interest any more; readiness goes on.
            self.slots.iter_mut().for_each(|s| s.probes = None);
        }
        self.ending = Some(ending.clone());
        let making = matches!(self.sandbox, Need::UnderWay) || matches!(self.volumes, Need::UnderWay);
        if !self.stop_stages(Some(self.grace())) || making {
            return;
        }
        match ending {
            Ending::Failed(..) => self.stop_sandbox(),
            Ending::Deleted => self.finish(),
        }
    }

    fn grace(&self) -> Duration {
        let grace = pod::grace(&self.pod);
        // A pod that was removed by force is not waited for.
        if *self.gone.borrow() { grace.min(Duration::from_secs(1)) } else { grace }
    }

    /// Stops what runs, sidecars last and in reverse order. With no grace given only sidecars run
    /// still. True once nothing runs and no work is under way.
    pub(super) fn stop_stages(&mut self, grace: Option<Duration>) -> bool {
        let each_grace = grace.unwrap_or_else(|| self.grace());
        let mut first_stage = false;
        for index in 0..self.slots.len() {
            if self.slots[index].role == Role::Sidecar {
                continue;
            }
            self.stop(index, each_grace, None);
            first_stage |= self.slots[index].op.is_some() || self.slots[index].running();
        }
        if first_stage {
            return false;
        }
        for index in (0..self.slots.len()).rev() {
            if self.slots[index].role == Role::Sidecar {
                self.stop(index, each_grace, None);
                if self.slots[index].op.is_some() || self.slots[index].running() {
                    return false;
                }
            }
        }
        true
    }

    /// Stops a container: gives up its pull, or begins its stop, or hastens the one under way.
    pub(super) fn stop(&mut self, index: usize, grace: Duration, message: Option<String>) {
        let address = self.address();
        let slot = &mut self.slots[index];
        let until = Instant::now() + grace;
        let mut told = true;
        match &slot.op {
            Some(Op::Pulling(task)) => {
                task.abort();
                slot.op = None;
            }
            // It looks at the token itself.
            Some(Op::Starting) => return,
            Some(Op::Stopping { task, until: before }) => {
                if until + Duration::from_secs(1) >= *before {
                    return;
                }
                task.abort();
                told = false;
            }
            None => {}
        }
        if !slot.running() {
            slot.waiting = None;
            return;
        }
        let Some(id) = slot.current.as_ref().map(|c| c.id.clone()) else { return };
        let message = message.unwrap_or_else(|| format!("Stopping container {}", slot.name()));
        let stop = Stop {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            role: slot.role,
            container: slot.container.clone(),
            id,
            address,
            grace,
            message: told.then_some(message),
        };
        let task = self.work.spawn(async move {
            stop.run().await;
            Done::Stopped(index)
        });
        slot.op = Some(Op::Stopping { task, until });
    }

    pub(super) fn address(&self) -> IpAddr {
        match &self.sandbox {
            Need::Ready(sandbox) => sandbox.address,
            _ => self.shared.node.internal_ip,
        }
    }

    /// Takes the network of a pod down that ended but is not deleted; its logs stay.
    pub(super) fn stop_sandbox(&mut self) {
        let Need::Ready(sandbox) = &self.sandbox else { return };
        match self.sandbox_stopped {
            Need::Ready(()) | Need::UnderWay => return,
            Need::Failed { retry: Some(at) } if at > Instant::now() => return self.wake_at(at),
            _ => {}
        }
        let (shared, id, uid) = (self.shared.clone(), sandbox.id.clone(), self.uid.clone());
        self.sandbox_stopped = Need::UnderWay;
        self.work.spawn(async move {
            let stopped = shared.runtime.stop_sandbox(&id).await.map_err(|e| e.to_string());
            if stopped.is_ok() {
                shared.addresses.lock().release(&uid);
            }
            Done::SandboxStopped(stopped)
        });
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.finishing, true) {
            return;
        }
        // Volume updates end before their folders go.
        self.volumes = Need::Failed { retry: None };
        let sandbox = match &self.sandbox {
            Need::Ready(sandbox) => Some(sandbox.id.clone()),
            _ => None,
        };
        let finish = Finish {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            sandbox,
            status: self.status(),
            gone: self.gone.subscribe(),
        };
        self.work.spawn(async move {
            finish.run().await;
            Done::Finished
        });
    }
}
