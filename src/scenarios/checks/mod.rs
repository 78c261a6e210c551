//! What a check looks at. A new kind is a file and a line in [`TABLE`].

mod event;
mod expected;
mod http;
mod image;
mod journey;
mod kubernetes;
mod leaves_rotation;
mod load;
mod reconnected;
pub mod secrets;
mod spread;
mod sql;
mod token;

use super::{
    Run, ScenarioError,
    table::{Row, arguments, schema_of},
};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;

/// Time between looks at what cannot be watched.
const PAUSE: Duration = Duration::from_millis(250);

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub holds: bool,
    /// Whether it can never hold any more, so that waiting is of no use.
    pub lost: bool,
    /// What was found, for people.
    pub found: String,
}

impl Verdict {
    /// It holds, or may still come to.
    pub fn new(holds: bool, found: impl Into<String>) -> Self {
        Self { holds, lost: false, found: found.into() }
    }

    /// It holds, or never will.
    pub fn final_(holds: bool, found: impl Into<String>) -> Self {
        Self { holds, lost: !holds, found: found.into() }
    }
}

/// Something that must hold.
#[async_trait]
pub trait Check: Send + Sync {
    /// What must hold, for people.
    fn claim(&self) -> String;

    /// Looks once.
    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError>;

    /// Returns when another look is worth while; kinds that can be watched wait for a change.
    async fn changed(&self, _: &Run<'_>) {
        tokio::time::sleep(PAUSE).await;
    }

    /// Looks until it holds, is lost, or the deadline has passed.
    async fn hold(&self, run: &Run<'_>, deadline: Instant) -> Verdict {
        loop {
            let verdict = match tokio::time::timeout_at(deadline, self.look(run)).await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(error)) => Verdict::new(false, error.to_string()),
                Err(_) => return Verdict::new(false, "no answer before the deadline"),
            };
            if verdict.holds || verdict.lost {
                return verdict;
            }
            if tokio::time::timeout_at(deadline, self.changed(run)).await.is_err() {
                return verdict;
            }
        }
    }
}

const fn row<C>(name: &'static str) -> Row<dyn Check>
where
    C: Check + DeserializeOwned + JsonSchema + 'static,
{
    Row { name, schema: schema_of::<C>, read: |value| Ok(Box::new(arguments::<C>(value)?)) }
}

/// All kinds.
pub const TABLE: &[Row<dyn Check>] = &[
    row::<event::EventSeen>("event"),
    row::<http::HttpAnswer>("http"),
    row::<image::ImagePushed>("image"),
    row::<journey::JourneyTime>("journey"),
    row::<kubernetes::ObjectState>("kubernetes"),
    row::<leaves_rotation::LeavesRotation>("leaves-rotation"),
    row::<load::LoadNumbers>("load"),
    row::<reconnected::Reconnected>("reconnected"),
    row::<secrets::NoSecrets>("no-secrets"),
    row::<spread::EvenSpread>("spread"),
    row::<sql::SqlAnswer>("sql"),
    row::<token::TokenClaims>("token"),
];

/// A kind by name.
pub fn find(name: &str) -> Option<&'static Row<dyn Check>> {
    TABLE.iter().find(|row| row.name == name)
}

/// Namespace when none is named.
pub fn default_namespace() -> String {
    "default".into()
}

/// HTTP status when none is named.
pub fn default_status() -> u16 {
    200
}
