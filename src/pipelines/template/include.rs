//! Template files: references, paths, limits.

use super::{Env, FileRef, Lazy, Loader};
use crate::{
    template::RepositoryRef,
    yaml::{Kind, Mark, Node, parse},
};
use std::rc::Rc;

/// Most files of a pipeline, as documented.
const MAX_FILES: usize = 100;
/// Deepest nesting of templates. Azure documents 100 levels; its object depth ends a chain of templates at about
/// half of that, and so does this.
const MAX_DEPTH: usize = 50;

impl Loader<'_> {
    /// Reads the file `reference` names, as seen from `from`, and gives its content.
    pub(super) fn include(&mut self, reference: &str, from: &Lazy) -> Option<(FileRef, Rc<Node>)> {
        let mark = &from.node.mark;
        let file = self.target(reference, &from.env, mark)?;
        if let Some(known) = self.parsed.get(&file) {
            return known.clone().map(|node| (file, node));
        }
        if self.parsed.len() >= MAX_FILES {
            self.error(mark, format!("No more than {MAX_FILES} separate YAML files may be included"));
            return None;
        }
        let node = self.read(&file, mark);
        self.parsed.insert(file.clone(), node.clone());
        node.map(|node| (file, node))
    }

    fn read(&mut self, file: &FileRef, mark: &Mark) -> Option<Rc<Node>> {
        let (name, reference) = self.repositories.get(&file.repository).cloned().unwrap_or_default();
        let repository = RepositoryRef { alias: &file.repository, name: &name, reference: &reference };
        let text = match self.files.read(repository, &file.path) {
            Ok(text) => text,
            Err(error) => {
                self.error(mark, error.to_string());
                return None;
            }
        };
        match parse(&text, &shown(file)) {
            Ok(Some(node)) => Some(Rc::new(node)),
            Ok(None) => Some(Rc::new(Node { kind: Kind::Mapping(Vec::new()), mark: Mark::file(&shown(file)) })),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }

    fn target(&mut self, reference: &str, env: &Env, mark: &Mark) -> Option<FileRef> {
        let (path, alias) = match reference.split_once('@') {
            Some((path, "")) => (path, Some("self")),
            Some((path, alias)) => (path, Some(alias)),
            None => (reference, None),
        };
        let repository = match alias {
            None => env.file.repository.clone(),
            Some(alias) if alias.eq_ignore_ascii_case("self") => "self".to_owned(),
            Some(alias) => match self.repositories.keys().find(|known| known.eq_ignore_ascii_case(alias)) {
                Some(known) => known.clone(),
                None => {
                    let hint = format!("declare it under `resources: repositories: - repository: {alias}`");
                    self.error_hint(mark, format!("No repository found by name {alias}"), hint);
                    return None;
                }
            },
        };
        let folder = match env.file.path.rsplit_once('/') {
            // Another repository is entered at its root.
            Some((folder, _)) if repository == env.file.repository => folder,
            _ => "",
        };
        let path = path.replace('\\', "/");
        let joined = if path.starts_with('/') { path } else { format!("{folder}/{path}") };
        let Some(path) = normal(&joined) else {
            self.error(mark, format!("The file path {joined} is invalid"));
            return None;
        };
        Some(FileRef { repository, path })
    }

    /// Goes one template deeper, if that is allowed.
    pub(super) fn enter(&mut self, mark: &Mark) -> bool {
        if self.depth >= MAX_DEPTH {
            self.error_hint(mark, "Maximum object depth exceeded", "does a template include itself?");
            return false;
        }
        self.depth += 1;
        true
    }

    /// Ends the template that was opened last.
    pub fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

/// What errors call a file.
fn shown(file: &FileRef) -> String {
    match file.repository.as_str() {
        "self" => file.path.clone(),
        alias => format!("{}@{alias}", file.path),
    }
}

/// A path without `.`, `..` and empty parts; `None` when it leaves the root or names nothing.
fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part if part.contains('\0') => return None,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(normal("a/../b//./c.yml").as_deref(), Some("b/c.yml"));
        assert_eq!(normal("a/../../b.yml"), None);
        assert_eq!(normal(""), None);
    }
}
