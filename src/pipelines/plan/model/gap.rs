//! What is not as in Azure.

use crate::error::Location;
use serde::{Deserialize, Serialize};

/// How a construct or task stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// As in Azure.
    Works,
    /// There, but behaves otherwise; the consequence says how.
    Differs,
    /// Not there: a run refuses it unless told to skip it.
    Gap,
}

/// A construct or task this pipeline uses that is not as in Azure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The construct (`schedules`) or task (`AzureCLI@2`).
    pub what: String,
    /// Differs or gap.
    pub standing: Standing,
    /// What follows for the run.
    pub consequence: String,
    /// Where it is used.
    pub location: Location,
}
