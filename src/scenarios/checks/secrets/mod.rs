//! No value of a Secret is where it must not be: in logs, events, objects, image layers, or what aksim
//! prints and writes down.

mod places;
mod search;

pub use search::{Needles, values};

use super::{Check, Verdict};
use crate::{Run, ScenarioError};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// `no-secrets`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NoSecrets {
    /// Where: all places when absent.
    #[serde(default)]
    places: Vec<places::Place>,
}

#[async_trait]
impl Check for NoSecrets {
    fn claim(&self) -> String {
        let places: Vec<&str> = self.places().iter().map(|p| p.name()).collect();
        format!("no secret value is in {}", places.join(", "))
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        run.remember_secrets(values(&run.environment.client).await?);
        let needles = Needles::new(&run.secrets())?;
        let (mut found, mut searched) = (Vec::new(), Vec::new());
        for place in self.places() {
            let result = place.search(run.environment, &needles).await?;
            searched.push(format!("{} ({} KiB)", place.name(), result.bytes / 1024));
            found.extend(result.found);
        }
        let count = needles.count();
        Ok(match found.is_empty() {
            true => Verdict::final_(true, format!("{count} values are nowhere in {}", searched.join(", "))),
            false => Verdict::final_(false, found.join("; ")),
        })
    }
}

impl NoSecrets {
    fn places(&self) -> Vec<places::Place> {
        if self.places.is_empty() { places::Place::ALL.to_vec() } else { self.places.clone() }
    }
}
