//! Log lines of the project's services, read through the Kubernetes API.

use aksim_cluster::templates::SERVICE_LABEL;
use aksim_model::{
    ids::ServiceName,
    log::{LogLine, LogQuery},
};
use aksim_runtime::control::LogSource;
use futures::{AsyncBufReadExt, Stream, StreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
    runtime::watcher::{self, Event},
};
use std::collections::BTreeSet;
use tokio::{sync::mpsc, task::JoinSet};

/// Reads logs of pods that carry [`SERVICE_LABEL`].
#[derive(Clone)]
pub struct ServiceLogs {
    client: Client,
}

impl ServiceLogs {
    /// Reads through `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl LogSource for ServiceLogs {
    fn lines(&self, query: LogQuery) -> BoxStream<'static, LogLine> {
        let (sender, receiver) = mpsc::channel(256);
        let work = collect(self.client.clone(), query, sender);
        // The reader drives the work; dropping it drops the work.
        let lines = futures::stream::unfold(receiver, async |mut r| r.recv().await.map(|line| (line, r)));
        drive(work, lines).boxed()
    }
}

/// A stream that makes progress on `work` while it is read.
fn drive<T: Send + 'static>(
    work: impl Future<Output = ()> + Send + 'static,
    items: impl Stream<Item = T> + Send + 'static,
) -> impl Stream<Item = T> + Send {
    let work = futures::stream::once(work).map(|()| None);
    futures::stream::select(work, items.map(Some)).filter_map(async |item| item)
}

async fn collect(client: Client, query: LogQuery, sender: mpsc::Sender<LogLine>) {
    let selector = match &query.service {
        Some(service) => format!("{SERVICE_LABEL}={service}"),
        None => SERVICE_LABEL.to_owned(),
    };
    let api: Api<Pod> = Api::all(client.clone());
    let mut readers = JoinSet::new();
    if !query.follow {
        let Ok(pods) = api.list(&ListParams::default().labels(&selector)).await else { return };
        for pod in pods {
            spawn_readers(&client, &pod, &query, &sender, &mut readers, &mut BTreeSet::new());
        }
        while readers.join_next().await.is_some() {}
        return;
    }
    let mut known = BTreeSet::new();
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default().labels(&selector)));
    loop {
        tokio::select! {
            () = sender.closed() => return,
            event = events.next() => match event {
                Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => {
                    spawn_readers(&client, &pod, &query, &sender, &mut readers, &mut known);
                }
                Some(_) => {}
                None => return,
            },
            Some(_) = readers.join_next(), if !readers.is_empty() => {}
        }
    }
}

/// A reader for each container that has started and is not being read.
fn spawn_readers(
    client: &Client,
    pod: &Pod,
    query: &LogQuery,
    sender: &mpsc::Sender<LogLine>,
    readers: &mut JoinSet<()>,
    known: &mut BTreeSet<String>,
) {
    let Some(service) = pod.labels().get(SERVICE_LABEL).map(|s| ServiceName::from(s.as_str())) else { return };
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    for status in statuses {
        let Some(id) = status.container_id.clone().filter(|id| !id.is_empty()) else { continue };
        if !known.insert(id) {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let parameters = LogParams {
            container: Some(status.name.clone()),
            follow: query.follow,
            tail_lines: query.tail.map(i64::from),
            timestamps: true,
            ..LogParams::default()
        };
        let (service, pod, sender) = (service.clone(), pod.name_any(), sender.clone());
        readers.spawn(async move {
            let Ok(stream) = api.log_stream(&pod, &parameters).await else { return };
            let mut lines = stream.lines();
            while let Some(Ok(line)) = lines.next().await {
                let (at, line) = split_time(&line);
                let line = LogLine { service: service.clone(), pod: pod.clone(), at, line: line.to_owned() };
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn split_time(line: &str) -> (Timestamp, &str) {
    let parsed = line.split_once(' ').and_then(|(time, rest)| Some((time.parse().ok()?, rest)));
    parsed.unwrap_or_else(|| (Timestamp::now(), line))
}
