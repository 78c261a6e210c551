//! What a scenario has changed in the cluster is put back when it ends.

use super::{Environment, ScenarioError};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value};

/// One change to put back.
pub enum Undo {
    /// An object that was made.
    Delete {
        /// Its kind.
        api: Api<DynamicObject>,
        /// Its name.
        name: String,
    },
    /// An object that was changed.
    Patch {
        /// Its kind.
        api: Api<DynamicObject>,
        /// Its name.
        name: String,
        /// Merge patch with what was there before.
        before: Value,
    },
}

impl Undo {
    /// Puts it back. What is gone meanwhile needs nothing.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn perform(self, _: &Environment) -> Result<(), ScenarioError> {
        let (name, outcome) = match self {
            Self::Delete { api, name } => {
                let deleted = api.delete(&name, &DeleteParams::default()).await.map(drop);
                (name, deleted)
            }
            Self::Patch { api, name, before } => {
                let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&before)).await.map(drop);
                (name, patched)
            }
        };
        match outcome {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map_err(ScenarioError::cluster(format!("putting back {name}"))),
        }
    }
}

/// The merge patch that puts back what `patch` changes of `object`.
pub fn inverse(object: &Value, patch: &Value) -> Value {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            let before = patch.iter().map(|(key, change)| match object.get(key) {
                Some(value) => (key.clone(), inverse(value, change)),
                None => (key.clone(), Value::Null),
            });
            Value::Object(before.collect::<Map<_, _>>())
        }
        (object, _) => object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_inverse_puts_back_what_was_there_and_takes_out_what_was_not() {
        let object = json!({"spec": {"a": 1, "b": {"c": [1, 2]}, "kept": true}});
        let patch = json!({"spec": {"a": 2, "b": {"c": [3], "d": 4}, "e": {"f": 5}}});
        let back = inverse(&object, &patch);
        assert_eq!(back, json!({"spec": {"a": 1, "b": {"c": [1, 2], "d": null}, "e": null}}));
        let mut changed = object.clone();
        json_patch::merge(&mut changed, &patch);
        json_patch::merge(&mut changed, &back);
        assert_eq!(changed, object);
    }
}
