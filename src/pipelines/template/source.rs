//! Where the files of a pipeline come from.

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file.
    #[error("File {path} not found in repository {repository}")]
    NotFound {
        /// Repository alias, `self` for the pipeline's own.
        repository: String,
        /// Path from the root of the repository.
        path: String,
    },
    /// The repository cannot be reached here.
    #[error("Repository {repository} is not available: {reason}")]
    Unavailable {
        /// Repository alias.
        repository: String,
        /// Why.
        reason: String,
    },
    /// Reading failed.
    #[error("File {path} could not be read: {source}")]
    Read {
        /// Path from the root of the repository.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A repository named under `resources: repositories`, as far as templates need it.
#[derive(Clone, Copy, Debug)]
pub struct RepositoryRef<'a> {
    /// Alias, `self` for the pipeline's own repository.
    pub alias: &'a str,
    /// `name:`, `ORG/REPO`; empty for `self`.
    pub name: &'a str,
    /// `ref:`; empty means the default branch, and for `self` the commit that is built.
    pub reference: &'a str,
}

/// Gives the text of template files, by repository and path.
///
/// Paths come normalised: relative, `/` between parts, never with `..`, so an implementation may join them.
pub trait TemplateSource {
    /// The text of `path` in `repository`.
    ///
    /// # Errors
    /// When the file or the repository is not there or not readable.
    fn read(&self, repository: RepositoryRef<'_>, path: &str) -> Result<String, SourceError>;
}
