//! Sends what is pending: one delivery a webhook at a time, oldest first, again after failures.

use super::{super::host::Host, Attempt, ContentType, Delivery, DeliveryState, Hook, signature};
use aksim_model::{
    event::{EventBody, FlowRow},
    ids::JourneyId,
    journey::Hop,
};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a receiver may take to answer (GitHub's time).
const DEADLINE: Duration = Duration::from_secs(10);
/// Deliveries under way at once.
const AT_ONCE: usize = 8;
/// How much of an answer is kept, bytes.
const KEPT_ANSWER: usize = 16 << 10;

/// When a failed delivery is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Pause after the first failure; doubled after each further one.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// Tries until it is given up.
    pub attempts: usize,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(300), attempts: 10 }
    }
}

impl RetryPolicy {
    /// Pause after a number of failures; `None` when there have been enough.
    fn pause(&self, failures: usize) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        Some(self.first.saturating_mul(1 << doublings).min(self.longest))
    }
}

/// Sends until `shutdown`; what is under way then stays pending.
pub(crate) async fn run(host: Arc<Host>, http: reqwest::Client, policy: RetryPolicy, shutdown: CancellationToken) {
    let mut under_way: JoinSet<u64> = JoinSet::new();
    let mut busy: HashSet<u64> = HashSet::new();
    loop {
        let now = Timestamp::now();
        let mut next: Option<Timestamp> = None;
        for delivery in host.webhooks.deliveries.pending() {
            if busy.len() >= AT_ONCE || busy.contains(&delivery.hook) {
                continue;
            }
            if delivery.next_at > now {
                next = Some(next.map_or(delivery.next_at, |n| n.min(delivery.next_at)));
                continue;
            }
            busy.insert(delivery.hook);
            let (host, http) = (host.clone(), http.clone());
            under_way.spawn(async move {
                let hook = delivery.hook;
                deliver(&host, &http, policy, delivery).await;
                hook
            });
        }
        let due = async {
            match next {
                Some(at) => tokio::time::sleep(at.duration_since(now).try_into().unwrap_or_default()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = host.webhooks.changed.notified() => {}
            Some(done) = under_way.join_next(), if !under_way.is_empty() => match done {
                Ok(hook) => { busy.remove(&hook); }
                // A panic of one delivery: its webhook is not known any more, so none is kept back.
                Err(error) => { tracing::error!(target: "git", %error, "delivery"); busy.clear(); }
            },
            () = due => {}
        }
    }
    under_way.shutdown().await;
}

async fn deliver(host: &Host, http: &reqwest::Client, policy: RetryPolicy, mut delivery: Delivery) {
    let (attempt, again) = match find_hook(host, &delivery) {
        Some(hook) => match host.webhooks.payload(delivery.id) {
            Ok(payload) => {
                delivery.url = hook.url.clone();
                let (headers, body) = request(&hook, &delivery, &payload);
                delivery.request_headers = shown(&headers);
                attempt(http, &hook.url, headers, body).await
            }
            Err(error) => (not_sent(format!("payload: {error}")), false),
        },
        None => (not_sent("the webhook does not exist any more".into()), false),
    };
    let ok = attempt.status_code.is_some_and(|code| (200..300).contains(&code));
    delivery.attempts.push(attempt);
    let pause = policy.pause(delivery.attempts.len()).filter(|_| again);
    (delivery.state, delivery.next_at) = match (ok, pause) {
        (true, _) => (DeliveryState::Delivered, delivery.next_at),
        (false, Some(pause)) => {
            let pause = jiff::SignedDuration::try_from(pause).unwrap_or(jiff::SignedDuration::ZERO);
            (DeliveryState::Pending, Timestamp::now().checked_add(pause).unwrap_or(Timestamp::MAX))
        }
        (false, None) => (DeliveryState::Failed, delivery.next_at),
    };
    if let Err(error) = host.webhooks.deliveries.update(&delivery) {
        // On disk it is pending still, and is sent again: at least once.
        tracing::error!(target: "git", %error, "a delivery's result cannot be kept");
        host.webhooks.deliveries.postpone(&delivery, policy.longest);
    }
    record(host, &delivery);
}

fn find_hook(host: &Host, delivery: &Delivery) -> Option<Hook> {
    let name = delivery.repository.parse().ok()?;
    let repository = host.repositories.find(&name).ok()??;
    host.webhooks.hook(&repository, delivery.hook).ok()?
}

fn not_sent(status: String) -> Attempt {
    Attempt {
        at: Timestamp::now(),
        duration_ms: 0,
        status,
        status_code: None,
        response_headers: BTreeMap::new(),
        response_body: String::new(),
    }
}

/// Headers and body as GitHub sends them; the signature is over the body's raw bytes.
fn request(hook: &Hook, delivery: &Delivery, payload: &[u8]) -> (HeaderMap, Vec<u8>) {
    let (content_type, body) = match hook.content_type {
        ContentType::Json => ("application/json", payload.to_vec()),
        ContentType::Form => {
            let text = String::from_utf8_lossy(payload);
            let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &text).finish();
            ("application/x-www-form-urlencoded", form.into_bytes())
        }
    };
    let mut pairs = vec![
        ("accept", "*/*".to_owned()),
        ("content-type", content_type.to_owned()),
        ("user-agent", "GitHub-Hookshot/aksim".to_owned()),
        ("x-github-delivery", delivery.guid.to_string()),
        ("x-github-event", delivery.event.clone()),
        ("x-github-hook-id", hook.id.to_string()),
        ("x-github-hook-installation-target-type", "repository".to_owned()),
    ];
    if let Some(secret) = &hook.secret {
        pairs.push(("x-hub-signature", signature::sha1(secret, &body)));
        pairs.push(("x-hub-signature-256", signature::sha256(secret, &body)));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        // Each of these is plain ASCII.
        if let Ok(value) = http::HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    (headers, body)
}

fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(pair).collect()
}

/// One try, and whether another may go better.
async fn attempt(http: &reqwest::Client, url: &str, headers: HeaderMap, body: Vec<u8>) -> (Attempt, bool) {
    let (at, begun) = (Timestamp::now(), Instant::now());
    let exchange = async {
        let mut response = http.post(url).headers(headers).body(body).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            text.extend_from_slice(&chunk[..chunk.len().min(KEPT_ANSWER - text.len())]);
            if text.len() >= KEPT_ANSWER {
                break;
            }
        }
        Ok::<_, reqwest::Error>((status, headers, text))
    };
    let outcome = tokio::time::timeout(DEADLINE, exchange).await;
    let mut attempt = not_sent(String::new());
    attempt.at = at;
    attempt.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let again = match outcome {
        Err(_) => {
            attempt.status = "timed out".into();
            true
        }
        Ok(Err(error)) => {
            attempt.status = with_causes(&error);
            true
        }
        Ok(Ok((status, headers, text))) => {
            attempt.status = match status.is_success() {
                true => "OK".into(),
                false => format!("Invalid HTTP Response: {}", status.as_u16()),
            };
            attempt.status_code = Some(status.as_u16());
            attempt.response_headers = shown(&headers);
            attempt.response_headers.remove(header::SET_COOKIE.as_str());
            attempt.response_body = String::from_utf8_lossy(&text).into_owned();
            status.is_server_error() || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
        }
    };
    (attempt, again)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Tells what became of an event that somebody waits for.
fn record(host: &Host, delivery: &Delivery) {
    let (Some(last), true) = (delivery.attempts.last(), delivery.event == "push") else { return };
    let flow = |ok, message| host.recorder.record(EventBody::Flow { row: FlowRow::Trigger, ok, message });
    match delivery.state {
        DeliveryState::Pending => {}
        DeliveryState::Failed => {
            flow(false, format!("push of {} not delivered to {}: {}", delivery.repository, delivery.url, last.status));
        }
        DeliveryState::Delivered => {
            flow(true, format!("push of {} delivered to {}", delivery.repository, delivery.url));
            let payload = host.webhooks.payload(delivery.id).unwrap_or_default();
            let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap_or_default();
            let branch = payload["ref"].as_str().is_some_and(|r| r.starts_with("refs/heads/"));
            if let (Some(commit), true, false) = (payload["head_commit"]["id"].as_str(), branch, delivery.redelivery) {
                host.recorder.record(EventBody::JourneyHop {
                    journey: JourneyId::of_commit(commit),
                    hop: Hop::Delivered,
                    passed: Timestamp::now(),
                    detail: format!("{} to {}", last.status_code.unwrap_or(0), delivery.url),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let policy = RetryPolicy { first: Duration::from_secs(1), longest: Duration::from_secs(5), attempts: 5 };
        let pauses: Vec<_> = (1..=5).map(|n| policy.pause(n).map(|p| p.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(5), None]);
    }
}
