//! An object of the cluster, or a list of them, by JSONPath.

use super::{
    Check, Verdict,
    expected::{Expected, plain},
};
use crate::{Run, ScenarioError};
use async_trait::async_trait;
use futures::StreamExt;
use jsonpath_rust::JsonPath;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    runtime::watcher,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

/// `kubernetes`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ObjectState {
    /// `KIND/NAME`, or `KIND` for all that the labels select, as a list with `items`.
    object: String,
    /// Namespace.
    #[serde(default = "super::default_namespace")]
    namespace: String,
    /// Label selector.
    #[serde(default)]
    labels: Option<String>,
    /// JSONPath (RFC 9535), with or without kubectl's braces. Several results are joined by spaces.
    path: String,
    /// The number of results instead of the results.
    #[serde(default)]
    count: bool,
    /// What it must be.
    #[serde(flatten)]
    expected: Expected,
}

#[async_trait]
impl Check for ObjectState {
    fn claim(&self) -> String {
        let number = if self.count { "the number of " } else { "" };
        format!("{number}{} of {} {}", self.path, self.object, self.expected.words())
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let (api, name) = self.api(run).await?;
        let doing = || ScenarioError::cluster(format!("reading {}", self.object));
        let value = match name {
            Some(name) => match api.get_opt(name).await.map_err(doing())? {
                Some(object) => serde_json::to_value(object).unwrap_or_default(),
                None => return Ok(Verdict::new(self.count && self.expected.holds("0"), "it is not there")),
            },
            None => {
                let list = api.list(&self.selection()).await.map_err(doing())?;
                json!({"items": list.items})
            }
        };
        self.judge(&value)
    }

    /// Each change of what is watched is a reason to look, and so is its beginning.
    async fn hold(&self, run: &Run<'_>, deadline: Instant) -> Verdict {
        let mut last = Verdict::new(false, "nothing was seen before the deadline");
        let watched = async {
            let (api, name) = self.api(run).await?;
            let mut config = watcher::Config::default();
            config.label_selector.clone_from(&self.labels);
            if let Some(name) = name {
                config = config.fields(&format!("metadata.name={name}"));
            }
            let mut events = std::pin::pin!(watcher(api, config));
            while let Some(event) = events.next().await {
                if matches!(event, Ok(watcher::Event::Init | watcher::Event::InitApply(_))) {
                    continue;
                }
                match self.look(run).await {
                    Ok(verdict) => last = verdict,
                    Err(error @ ScenarioError::Missing(_)) => return Err(error),
                    Err(error) => last = Verdict::new(false, error.to_string()),
                }
                if last.holds {
                    break;
                }
            }
            Ok::<(), ScenarioError>(())
        };
        match tokio::time::timeout_at(deadline, watched).await {
            Ok(Err(error)) => Verdict::final_(false, error.to_string()),
            Ok(Ok(())) | Err(_) => last,
        }
    }
}

impl ObjectState {
    async fn api(&self, run: &Run<'_>) -> Result<(Api<DynamicObject>, Option<&str>), ScenarioError> {
        let (kind, name) = match self.object.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (self.object.as_str(), None),
        };
        Ok((run.environment.objects(kind, &self.namespace).await?, name))
    }

    fn selection(&self) -> ListParams {
        ListParams { label_selector: self.labels.clone(), ..ListParams::default() }
    }

    fn judge(&self, value: &Value) -> Result<Verdict, ScenarioError> {
        let path = rfc9535(&self.path);
        let results =
            value.query(&path).map_err(|e| ScenarioError::Missing(format!("{} is no JSONPath: {e}", self.path)))?;
        let found = match self.count {
            true => results.len().to_string(),
            false => results.into_iter().map(plain).collect::<Vec<_>>().join(" "),
        };
        let nothing = !self.count && found.is_empty();
        let holds = !nothing && self.expected.holds(&found);
        Ok(Verdict::new(holds, if nothing { "nothing".to_owned() } else { found }))
    }
}

/// kubectl's form as the standard's: without braces, from the root.
fn rfc9535(path: &str) -> String {
    let path = path.trim();
    let path = path.strip_prefix('{').and_then(|p| p.strip_suffix('}')).unwrap_or(path);
    if path.starts_with('$') { path.to_owned() } else { format!("${path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: Value) -> ObjectState {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn paths_of_kubectl_and_of_the_standard_select() {
        let object = json!({"status": {"readyReplicas": 2, "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        let ready = check(json!({"object": "d/x", "path": "{.status.readyReplicas}", "at-least": 2}));
        assert_eq!(ready.judge(&object).unwrap(), Verdict::new(true, "2"));
        let path = "$.status.conditions[?(@.type=='Ready')].status";
        assert!(check(json!({"object": "d/x", "path": path, "is": "True"})).judge(&object).unwrap().holds);
        let count = check(json!({"object": "d/x", "path": ".status.conditions[*]", "count": true, "is": 2}));
        assert!(count.judge(&object).unwrap().holds);
        let absent = check(json!({"object": "d/x", "path": ".status.nothing"}));
        assert_eq!(absent.judge(&object).unwrap(), Verdict::new(false, "nothing"));
        assert!(check(json!({"object": "d/x", "path": "[["})).judge(&object).is_err());
    }
}
