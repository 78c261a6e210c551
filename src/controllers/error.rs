//! Why a reconciliation failed.

use std::time::Duration;

/// Why a reconciliation failed; it is tried again with back-off.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The API server refused a request or could not be reached.
    #[error("{doing}: {source}")]
    Api {
        /// What was attempted.
        doing: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object cannot be encoded.
    #[error("cannot encode {what}: {source}")]
    Encode {
        /// Which object.
        what: String,
        /// The encoder's error.
        #[source]
        source: serde_json::Error,
    },
    /// An object says something that cannot be acted upon.
    #[error("{object}: {reason}")]
    Invalid {
        /// Which object, `namespace/name`.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The reconciliation did not end in time.
    #[error("no result within {0:?}")]
    Deadline(Duration),
    /// Something has to happen first; the message says what.
    #[error("{0}")]
    NotYet(String),
}

impl ControllerError {
    /// Wraps a client error with what was attempted.
    pub fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api { doing, source: Box::new(source) }
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|s| s.code == 404)
    }
    /// Someone else changed the object first.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.code == 409 && s.reason != "AlreadyExists")
    }
    /// An object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|s| s.reason == "AlreadyExists")
    }
    /// The namespace is being deleted, so that nothing can be created in it.
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|s| {
            s.code == 403
                && s.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
        })
    }
    /// The server's words alone, for events and conditions.
    pub fn server_message(&self) -> String {
        self.status().map_or_else(|| self.to_string(), |s| s.message.clone())
    }
}
