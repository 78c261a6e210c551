//! What starts a run.

use serde::{Deserialize, Serialize};

/// When a push or pull request starts a run. An empty include list takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trigger {
    /// `none`: nothing starts it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub none: bool,
    /// One run at a time; changes meanwhile are taken together. Pushes only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
    /// A newer commit cancels the running validation. Pull requests only; Azure's default is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_cancel: bool,
    /// Drafts count too. Pull requests only; Azure's default is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drafts: bool,
    /// Branch names, with or without `refs/heads/`, wildcards `*` and `?`.
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub branches: Filter,
    /// Changed paths from the root of the repository.
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub paths: Filter,
    /// Tag names. A push of a tag runs only when tags are included. Pushes only.
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub tags: Filter,
}

/// Include and exclude patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// What counts; empty means everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// What does not, although included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

impl Filter {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// A run by the clock, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Five fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// Name of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Branches that are run.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub branches: Filter,
    /// Run although nothing changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Run although the last scheduled run has not ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
}
