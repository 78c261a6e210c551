//! GET on a collection: items and revision from one moment.

use crate::{
    codec::Representation,
    request::{
        info::Query,
        selector::{FieldSelector, Selection, Selector},
        status::ApiError,
        target::Target,
    },
    schema::{Resource, table::partial_metadata},
    server::{api::Call, response},
    store::{Key, Object, State, TableId},
};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Largest list fragment that is kept, bytes.
const FRAGMENT_LIMIT: usize = 4 << 20;
/// Snapshots kept for lists that are read page by page.
const SNAPSHOTS: usize = 64;

type FragmentKey = (TableId, Option<String>);

/// List answers that can be given again: joined items until their table changes, and snapshots
/// that continue tokens refer to.
#[derive(Default)]
pub struct Cache {
    fragments: Mutex<HashMap<FragmentKey, (u64, Bytes)>>,
    snapshots: Mutex<VecDeque<Arc<State>>>,
}

impl Cache {
    fn fragment(&self, state: &State, target: &Target, namespace: Option<&str>) -> Bytes {
        let table = state.table(target.table);
        let key = (target.table, namespace.map(str::to_owned));
        if let Some((changed, bytes)) = self.fragments.lock().get(&key)
            && *changed == table.changed
        {
            return bytes.clone();
        }
        let mut joined = Vec::new();
        join(&mut joined, table.range(namespace, None));
        let joined = Bytes::from(joined);
        if joined.len() <= FRAGMENT_LIMIT {
            self.fragments.lock().insert(key, (table.changed, joined.clone()));
        }
        joined
    }

    fn remember(&self, state: &Arc<State>) {
        let mut snapshots = self.snapshots.lock();
        if snapshots.iter().any(|kept| kept.revision == state.revision) {
            return;
        }
        if snapshots.len() >= SNAPSHOTS {
            snapshots.pop_front();
        }
        snapshots.push_back(state.clone());
    }

    fn recall(&self, revision: u64) -> Option<Arc<State>> {
        self.snapshots.lock().iter().find(|kept| kept.revision == revision).cloned()
    }
}

fn join<'a>(out: &mut Vec<u8>, objects: impl Iterator<Item = &'a Arc<Object>>) {
    for (index, object) in objects.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&object.bytes);
    }
}

/// What a continue token says.
#[derive(Serialize, Deserialize)]
struct Continue {
    /// Revision of the list; `None` to read on at the newest.
    #[serde(rename = "rv")]
    revision: Option<u64>,
    /// Last key given.
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
    fn decode(text: &str) -> Result<Self, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }
}

/// What the parameters of a list, watch or collection removal pick.
///
/// # Errors
/// 400 for selectors that do not parse.
pub fn selection(call: &Call, target: &Target) -> Result<Selection, ApiError> {
    let query = &call.info.query;
    let namespace =
        (target.resource.namespaced && !call.info.namespace.is_empty()).then(|| call.info.namespace.clone());
    Ok(Selection {
        namespace,
        labels: Selector::parse(query.get("labelSelector").unwrap_or_default())?,
        fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or_default(), &target.table_name)?,
    })
}

/// The page of a list.
struct Page {
    objects: Vec<Arc<Object>>,
    metadata: Value,
}

/// Answers with the list.
pub fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let selection = selection(call, target)?;
    let (state, after) = state(call, target)?;
    let limit = call.info.query.number("limit")?.filter(|limit| *limit > 0);
    let stored = response::wants_stored_bytes(&call.accept) && target.is_stored_version();
    if stored && limit.is_none() && after.is_none() && selection.is_everything() {
        let items = call.api.lists.fragment(&state, target, selection.namespace.as_deref());
        let metadata = json!({"resourceVersion": state.revision.to_string()});
        return Ok(answer(call, &target.resource, &metadata, &items));
    }
    let page = page(call, target, &selection, &state, after.as_ref(), limit);
    if stored {
        let mut items = Vec::new();
        join(&mut items, page.objects.iter());
        return Ok(answer(call, &target.resource, &page.metadata, &items));
    }
    let objects = page.objects.iter().map(|object| target.decode(object)).collect::<Result<Vec<_>, _>>()?;
    shaped(call, &target.resource, objects, page.metadata)
}

/// A list of decoded objects in the representation that the client wants.
pub fn shaped(
    call: &Call,
    resource: &Resource,
    objects: Vec<Value>,
    metadata: Value,
) -> Result<Response<Body>, ApiError> {
    let list = match &call.accept.representation {
        Representation::Object | Representation::Discovery { .. } => {
            json!({"kind": resource.list_kind, "apiVersion": resource.api_version(),
            "metadata": metadata, "items": objects})
        }
        Representation::Table { version } => {
            let mut table = response::table_of(call, resource, &objects, version, true);
            table["metadata"] = metadata;
            table
        }
        Representation::PartialObjectMetadata { version } => {
            let items: Vec<_> = objects.iter().map(|object| partial_metadata(object, version)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata, "items": items})
        }
    };
    let encoded =
        crate::codec::encode(call.accept.media, &list, call.accept.pretty).map_err(crate::server::api::codec_error)?;
    Ok(response::large(call, call.accept.media.as_str(), encoded.into()))
}

/// A list of stored bytes.
fn answer(call: &Call, resource: &Resource, metadata: &Value, items: &[u8]) -> Response<Body> {
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        resource.list_kind,
        resource.api_version()
    );
    let mut body = Vec::with_capacity(head.len() + items.len() + 3);
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(items);
    body.extend_from_slice(b"]}\n");
    response::large(call, "application/json", body.into())
}

fn page(
    call: &Call,
    target: &Target,
    selection: &Selection,
    state: &Arc<State>,
    after: Option<&Key>,
    limit: Option<u64>,
) -> Page {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let table = state.table(target.table);
    let mut picked = table.range(selection.namespace.as_deref(), after).filter(|object| selection.matches(object));
    let objects: Vec<_> = picked.by_ref().take(limit).cloned().collect();
    let mut metadata = json!({"resourceVersion": state.revision.to_string()});
    let remaining = picked.count();
    if let Some(last) = objects.last().filter(|_| remaining > 0) {
        call.api.lists.remember(state);
        let token = Continue { revision: Some(state.revision), after: last.key.as_text().to_owned() };
        metadata["continue"] = token.encode().into();
        if selection.is_everything() {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    Page { objects, metadata }
}

/// The state that the list is to be of, and the key it continues after.
fn state(call: &Call, target: &Target) -> Result<(Arc<State>, Option<Key>), ApiError> {
    let query = &call.info.query;
    let current = call.api.store.snapshot();
    let wanted = revision(query)?;
    if let Some(token) = query.get("continue") {
        let token = Continue::decode(token)?;
        if wanted.is_some_and(|wanted| wanted > 0) {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let after = Key::from_text(&token.after);
        let state = match token.revision {
            None => current,
            Some(revision) => at(call, target, current, revision).ok_or_else(|| {
                let rest = Continue { revision: None, after: token.after };
                ApiError::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start \
                     a new list without the continue parameter, or use the continue token in this response to \
                     retrieve the remainder of the results. Continuing with the provided token results in an \
                     inconsistent list - objects that were created, modified, or deleted between the time the first \
                     chunk was returned and now may show up in the list.",
                )
                .with_continue(&rest.encode())
            })?,
        };
        return Ok((state, Some(after)));
    }
    match (query.get("resourceVersionMatch"), wanted) {
        (None | Some("NotOlderThan"), None | Some(0)) => Ok((current, None)),
        (None | Some("NotOlderThan"), Some(wanted)) => not_newer(&current, wanted).map(|()| (current, None)),
        (Some("Exact"), Some(wanted)) if wanted > 0 => {
            not_newer(&current, wanted)?;
            let state = at(call, target, current, wanted)
                .ok_or_else(|| ApiError::expired("The resourceVersion for the provided list is too old."))?;
            Ok((state, None))
        }
        (Some(other), _) => Err(ApiError::bad_request(format!(
            "resourceVersionMatch: Invalid value: \"{other}\": it needs a matching resourceVersion"
        ))),
    }
}

/// The state at an exact revision, as far as the table can tell.
fn at(call: &Call, target: &Target, current: Arc<State>, revision: u64) -> Option<Arc<State>> {
    if (current.table(target.table).changed..=current.revision).contains(&revision) {
        return Some(current);
    }
    call.api.lists.recall(revision)
}

/// The `resourceVersion` parameter.
///
/// # Errors
/// 400 when it is no number.
pub fn revision(query: &Query) -> Result<Option<u64>, ApiError> {
    query
        .get("resourceVersion")
        .map(|text| {
            text.parse().map_err(|_| {
                ApiError::bad_request(format!(
                    "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: invalid syntax"
                ))
            })
        })
        .transpose()
}

fn not_newer(current: &State, wanted: u64) -> Result<(), ApiError> {
    if wanted <= current.revision {
        return Ok(());
    }
    let message = format!("Too large resource version: {wanted}, current: {}", current.revision);
    Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with_too_large_version())
}
