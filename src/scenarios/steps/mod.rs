//! What a step does. A new kind is a file and a line in [`TABLE`].

mod apply;
mod inject;
pub mod load;
mod patch;
mod pause;
mod rollouts;
mod rotate_password;

use super::{
    Run, ScenarioError,
    table::{Row, arguments, schema_of},
};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// What a step does.
#[async_trait]
pub trait Action: Send + Sync {
    /// Does it; says in a few words what was done.
    async fn perform(&self, run: &Run<'_>) -> Result<String, ScenarioError>;
}

const fn row<A>(name: &'static str) -> Row<dyn Action>
where
    A: Action + DeserializeOwned + JsonSchema + 'static,
{
    Row { name, schema: schema_of::<A>, read: |value| Ok(Box::new(arguments::<A>(value)?)) }
}

/// All kinds.
pub const TABLE: &[Row<dyn Action>] = &[
    row::<apply::Apply>("apply"),
    row::<inject::Heal>("heal"),
    row::<inject::Inject>("inject"),
    row::<load::StartLoad>("load"),
    row::<load::StopLoad>("stop-load"),
    row::<patch::PatchObject>("patch"),
    row::<pause::Pause>("pause"),
    row::<rollouts::Rollouts>("rollouts"),
    row::<rotate_password::RotatePassword>("rotate-password"),
];

/// A kind by name.
pub fn find(name: &str) -> Option<&'static Row<dyn Action>> {
    TABLE.iter().find(|row| row.name == name)
}
