//! Identifiers as newtypes: a service name is not a component name.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a value that the caller has already validated.
            pub fn new(value: impl Into<String>) -> Self {
                Self(value.into())
            }
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                Self(value.to_owned())
            }
        }
    };
}

id!(
    /// Name of an environment: a DNS-1123 label, `name` in `aksim.toml`.
    EnvironmentName
);
id!(
    /// Random id of one environment, made at its first `up`; labels everything aksim creates.
    EnvironmentId
);
id!(
    /// Name of a `[[service]]`: a DNS-1123 label.
    ServiceName
);
id!(
    /// Name of a component of the environment: `kubernetes`, `registry`, `identity`, …
    ComponentName
);
id!(
    /// Id of a journey: 32 lowercase hex digits, a W3C trace id.
    JourneyId
);

impl JourneyId {
    /// Id of the journey of a pushed commit: the first half of its hash, so that the Git host and
    /// the pipelines, who meet only by webhook, write to the same trace.
    pub fn of_commit(sha: &str) -> Self {
        Self(sha.chars().take(32).collect::<String>().to_ascii_lowercase())
    }
}
