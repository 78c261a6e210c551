//! Watches: exact resume, bookmarks, initial events (WatchList), selectors, tables.

use super::list::{revision, selection};
use crate::{
    codec::Representation,
    request::{selector::Selection, status::ApiError, target::Target},
    schema::table::partial_metadata,
    server::{api::Call, response},
    store::{Event, EventKind, Object, Subscription},
};
use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// Time between bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Most events put into one frame of the answer.
const FRAME_EVENTS: usize = 128;
/// Shortest time of a watch whose client does not say; the longest is twice that.
const DEFAULT_TIMEOUT_SECONDS: u64 = 1800;

/// Answers with the stream of events.
pub fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let query = &call.info.query;
    let selection = selection(call, target)?;
    let from = revision(query)?;
    let send_initial = query.flag("sendInitialEvents");
    check_initial_events(call, send_initial)?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let snapshot = call.api.store.snapshot();
    let with_state = send_initial || (from.unwrap_or(0) == 0 && query.get("sendInitialEvents").is_none());
    let start = if with_state { snapshot.revision } else { from.filter(|v| *v > 0).unwrap_or(snapshot.revision) };
    let subscription = call.api.store.watch(target.table, start).map_err(|gone| ApiError::expired(gone.to_string()))?;
    let initial: VecDeque<_> = if with_state {
        let table = snapshot.table(target.table);
        table.range(selection.namespace.as_deref(), None).filter(|o| selection.matches(o)).cloned().collect()
    } else {
        VecDeque::new()
    };
    let seconds = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let seconds = seconds.unwrap_or_else(|| rand::random_range(DEFAULT_TIMEOUT_SECONDS..2 * DEFAULT_TIMEOUT_SECONDS));
    let now = Instant::now();
    let encoder = Encoder::new(call, target);
    let watch = Watch {
        encoder,
        selection,
        subscription,
        initial,
        end_bookmark: (send_initial && bookmarks).then_some(snapshot.revision),
        bookmarks,
        bookmark_at: now + BOOKMARK_EVERY,
        // Bounded, so that adding it to the clock cannot overflow.
        deadline: now + Duration::from_secs(seconds.min(365 * 24 * 3600)),
        seen: start,
        table: target.table,
        ended: false,
    };
    let frames = stream::unfold(watch, |mut watch| async move {
        let frame = watch.next().await?;
        Some((Ok::<_, Infallible>(frame), watch))
    });
    Ok(response::bytes(StatusCode::OK, "application/json", Body::from_stream(frames)))
}

fn check_initial_events(call: &Call, send_initial: bool) -> Result<(), ApiError> {
    let query = &call.info.query;
    let matching = query.get("resourceVersionMatch");
    match (query.get("sendInitialEvents").is_some(), matching) {
        (true, Some("NotOlderThan")) | (false, None) => Ok(()),
        (true, _) => Err(ApiError::unprocessable(format!(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires \
             setting resourceVersionMatch to NotOlderThan (sendInitialEvents={send_initial})"
        ))),
        (false, Some(_)) => Err(ApiError::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
             forbidden for watch unless sendInitialEvents is provided",
        )),
    }
}

struct Watch {
    encoder: Encoder,
    selection: Selection,
    subscription: Subscription,
    initial: VecDeque<Arc<Object>>,
    /// Revision of the bookmark that ends the initial events, until it is sent.
    end_bookmark: Option<u64>,
    bookmarks: bool,
    bookmark_at: Instant,
    deadline: Instant,
    seen: u64,
    table: crate::store::TableId,
    ended: bool,
}

impl Watch {
    /// The next bytes for the client; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::new();
        if !self.initial.is_empty() {
            for object in self.initial.drain(..self.initial.len().min(FRAME_EVENTS)) {
                self.encoder.event(&mut out, "ADDED", &object);
            }
            return Some(out.freeze());
        }
        if let Some(revision) = self.end_bookmark.take() {
            self.encoder.bookmark(&mut out, revision, true);
            return Some(out.freeze());
        }
        while out.is_empty() {
            let wake = self.deadline.min(self.bookmark_at);
            let shutdown = self.encoder.api.shutdown.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                events = self.subscription.next(FRAME_EVENTS) => match events {
                    Ok(events) => events.iter().for_each(|event| self.transition(&mut out, event)),
                    Err(gone) => {
                        self.ended = true;
                        let status = ApiError::expired(gone.to_string()).status();
                        write_event(&mut out, "ERROR", status.to_string().as_bytes());
                    }
                },
                () = tokio::time::sleep_until(wake) => {
                    self.ended = Instant::now() >= self.deadline;
                    self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
                    self.bookmark(&mut out);
                    if self.ended && out.is_empty() {
                        return None;
                    }
                }
            }
        }
        Some(out.freeze())
    }

    /// A bookmark at the newest revision, unless events up to it are still to come.
    fn bookmark(&mut self, out: &mut BytesMut) {
        let state = self.encoder.api.store.snapshot();
        if self.bookmarks && state.table(self.table).changed <= self.seen {
            self.encoder.bookmark(out, state.revision, false);
        }
    }

    fn transition(&mut self, out: &mut BytesMut, event: &Event) {
        self.seen = event.object.revision;
        let before = event.previous.as_ref().is_some_and(|object| self.selection.matches(object));
        let after = self.selection.matches(&event.object);
        let kind = match (event.kind, before, after) {
            (EventKind::Deleted, true, _) | (EventKind::Deleted, _, true) => "DELETED",
            (EventKind::Deleted, false, false) | (_, false, false) => return,
            (_, false, true) => "ADDED",
            (_, true, true) => "MODIFIED",
            (_, true, false) => {
                // Out of the selection: its last state there, at the revision of this change.
                if let Some(previous) = &event.previous {
                    self.encoder.left(out, previous, event.object.revision);
                }
                return;
            }
        };
        self.encoder.event(out, kind, &event.object);
    }
}

/// Writes events in the representation that the client asked for.
struct Encoder {
    api: Arc<crate::server::api::Api>,
    target: Target,
    call: Call,
    stored: bool,
    headers_sent: bool,
}

impl Encoder {
    fn new(call: &Call, target: &Target) -> Self {
        let call = Call {
            api: call.api.clone(),
            info: call.info.clone(),
            user: call.user.clone(),
            headers: call.headers.clone(),
            accept: call.accept.clone(),
            body: Bytes::new(),
            warnings: Default::default(),
        };
        // Streams of YAML documents are not a thing: JSON it is.
        let stored = call.accept.representation == Representation::Object && target.is_stored_version();
        let target = Target::new(&call.api.store, &target.resource);
        Self { api: call.api.clone(), target, call, stored, headers_sent: false }
    }

    fn event(&mut self, out: &mut BytesMut, kind: &str, object: &Object) {
        if self.stored {
            return write_event(out, kind, &object.bytes);
        }
        match self.target.decode(object) {
            Ok(value) => self.value(out, kind, value),
            Err(error) => write_event(out, "ERROR", error.status().to_string().as_bytes()),
        }
    }

    fn left(&mut self, out: &mut BytesMut, object: &Object, revision: u64) {
        match self.target.decode(object) {
            Ok(mut value) => {
                value["metadata"]["resourceVersion"] = revision.to_string().into();
                self.value(out, "DELETED", value);
            }
            Err(error) => write_event(out, "ERROR", error.status().to_string().as_bytes()),
        }
    }

    fn value(&mut self, out: &mut BytesMut, kind: &str, value: Value) {
        let shaped = match &self.call.accept.representation {
            Representation::Object | Representation::Discovery { .. } => value,
            Representation::Table { version } => {
                let headers = !std::mem::replace(&mut self.headers_sent, true);
                let revision = value["metadata"]["resourceVersion"].clone();
                let mut table = response::table_of(&self.call, &self.target.resource, &[value], version, headers);
                table["metadata"] = json!({"resourceVersion": revision});
                table
            }
            Representation::PartialObjectMetadata { version } => partial_metadata(&value, version),
        };
        write_event(out, kind, shaped.to_string().as_bytes());
    }

    fn bookmark(&self, out: &mut BytesMut, revision: u64, initial_events_end: bool) {
        let resource = &self.target.resource;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match &self.call.accept.representation {
            Representation::Object | Representation::Discovery { .. } => {
                json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata})
            }
            Representation::Table { version } => {
                let row = json!({"cells": [], "object": {"kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1", "metadata": metadata}});
                json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {
                    "resourceVersion": revision.to_string()}, "columnDefinitions": null, "rows": [row]})
            }
            Representation::PartialObjectMetadata { version } => json!({"kind": "PartialObjectMetadata",
                "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata}),
        };
        write_event(out, "BOOKMARK", object.to_string().as_bytes());
    }
}

fn write_event(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}
