//! Sends the requests.

use super::{Record, Sample};
use crate::environment::Door;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Requests under way at most; one more counts as failed, as its client would have given up.
const MOST_OPEN: usize = 4000;
/// Header in which an answer names who served it.
const SERVED_BY: &str = "x-served-by";
/// Slowest rate, requests a second.
const SLOWEST: f64 = 0.01;

/// What is sent.
#[derive(Clone)]
pub struct LoadSpec {
    /// Where to.
    pub door: Door,
    /// Requests a second.
    pub rate: f64,
    /// Status that is right.
    pub status: u16,
}

/// A load under way. Dropping it ends its requests.
pub struct Load {
    record: Record,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Load {
    /// Starts sending.
    pub fn start(spec: LoadSpec) -> Self {
        let (record, stop) = (Record::default(), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(send(spec, record.clone(), stop.clone()));
        Self { record, stop, task }
    }

    /// What became of the requests so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Sends no more and waits for the requests under way, which have a deadline each.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

async fn send(spec: LoadSpec, record: Record, stop: CancellationToken) {
    let period = Duration::from_secs_f64(1.0 / spec.rate.max(SLOWEST));
    let (begun, mut number) = (Instant::now(), 0u32);
    let mut open = JoinSet::new();
    loop {
        let due = begun + period * number;
        number += 1;
        let wait = tokio::time::sleep_until(due.into());
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    while open.join_next().await.is_some() {}
                    return;
                }
                () = &mut wait => break,
                Some(_) = open.join_next(), if !open.is_empty() => {}
            }
        }
        if open.len() >= MOST_OPEN {
            let outcome = Err(format!("not sent: {MOST_OPEN} requests were open"));
            record.add(Sample { due, latency: due.elapsed(), outcome });
            continue;
        }
        let (spec, record) = (spec.clone(), record.clone());
        open.spawn(async move {
            let outcome = request(&spec).await;
            record.add(Sample { due, latency: due.elapsed(), outcome });
        });
    }
}

/// Who served it, or why it failed.
async fn request(spec: &LoadSpec) -> Result<Option<String>, String> {
    let answer = spec.door.client.get(spec.door.url.clone()).send().await.map_err(|e| chain(&e))?;
    let status = answer.status().as_u16();
    let served = answer.headers().get(SERVED_BY).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = answer.text().await.map_err(|e| format!("body: {}", chain(&e)))?;
    if status == spec.status {
        return Ok(served);
    }
    let first: String = body.lines().next().unwrap_or_default().chars().take(120).collect();
    Err(format!("HTTP {status}: {first}"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, http::StatusCode, routing::get};
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::sync::Semaphore;

    /// A server that answers `/` when the gate lets it.
    async fn server(gate: Arc<Semaphore>, started: Arc<AtomicUsize>) -> (Door, JoinSet<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let answer = move || {
            let (gate, started) = (gate.clone(), started.clone());
            async move {
                let number = started.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                match number {
                    1 => (StatusCode::SERVICE_UNAVAILABLE, [(SERVED_BY, "a")], "no\nmore"),
                    _ => (StatusCode::OK, [(SERVED_BY, "a")], "yes"),
                }
            }
        };
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, Router::new().route("/", get(answer))).await.unwrap() });
        (Door { url, client: reqwest::Client::builder().no_proxy().build().unwrap() }, task)
    }

    async fn until(condition: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("not within a minute");
    }

    #[tokio::test]
    async fn a_server_that_stands_still_is_asked_on_and_latency_counts_from_when_it_was_due() {
        aksim_runtime::pki::install_crypto_provider();
        let (gate, started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (door, _server) = server(gate.clone(), started.clone()).await;
        let mut load = Load::start(LoadSpec { door, rate: 200.0, status: 200 });
        // A closed model would wait for the first answer.
        until(|| started.load(Ordering::SeqCst) >= 20).await;
        let stood = Instant::now();
        let first_due = stood - Duration::from_millis(50);
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.add_permits(100_000);
        load.stop().await;
        let summary = load.record().summary(None);
        assert!(summary.requests >= 20, "{summary:?}");
        assert_eq!(summary.failed, 1);
        assert_eq!(summary.failures, ["HTTP 503: no"]);
        assert!(summary.max_ms >= 100, "{summary:?}");
        assert!(
            load.record()
                .samples(None)
                .iter()
                .filter_map(|s| s.outcome.clone().ok())
                .all(|s| s.as_deref() == Some("a"))
        );
        assert!(load.record().samples(Some(first_due)).len() <= summary.requests);
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failure() {
        aksim_runtime::pki::install_crypto_provider();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let door = Door { url, client: reqwest::Client::builder().no_proxy().build().unwrap() };
        let mut load = Load::start(LoadSpec { door, rate: 100.0, status: 200 });
        let record = load.record().clone();
        until(|| record.summary(None).requests >= 3).await;
        load.stop().await;
        let summary = load.record().summary(None);
        assert_eq!(summary.failed, summary.requests);
    }
}
