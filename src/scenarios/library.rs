//! Where scenarios are: those that come with aksim, those of the project, and files by path.

use super::{Scenario, ScenarioError, load};
use aksim_model::suggest::nearest;
use rust_embed::RustEmbed;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

#[derive(RustEmbed)]
#[folder = "../../scenarios"]
#[include = "*.yaml"]
struct Shipped;

/// A scenario that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// File; of those that come with aksim, its name there.
    pub path: PathBuf,
    /// Text.
    pub text: String,
}

impl Entry {
    /// Reads it.
    ///
    /// # Errors
    /// [`ScenarioError::Invalid`] with every problem.
    pub fn read(&self, set: &BTreeMap<String, String>) -> Result<Scenario, ScenarioError> {
        load::parse(&self.name, &self.text, set).map_err(|problems| ScenarioError::Invalid {
            path: self.path.clone(),
            text: self.text.clone(),
            problems,
        })
    }
}

/// All by name; those in the folder `scenarios` of the project hide those that come with aksim.
///
/// # Errors
/// A file of the project that cannot be read.
pub fn list(project: &Path) -> Result<Vec<Entry>, ScenarioError> {
    let mut found = BTreeMap::new();
    for file in Shipped::iter() {
        if let Some(content) = Shipped::get(&file) {
            let text = String::from_utf8_lossy(&content.data).into_owned();
            let name = file.trim_end_matches(".yaml").to_owned();
            found.insert(name.clone(), Entry { name, path: Path::new("scenarios").join(file.as_ref()), text });
        }
    }
    let folder = project.join("scenarios");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found.into_values().collect()),
        Err(source) => return Err(ScenarioError::Read { path: folder, source }),
    };
    for entry in entries {
        let path = entry.map_err(|source| ScenarioError::Read { path: folder.clone(), source })?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            let entry = file(&path)?;
            found.insert(entry.name.clone(), entry);
        }
    }
    Ok(found.into_values().collect())
}

/// One by name, or by the path of a file.
///
/// # Errors
/// [`ScenarioError::Unknown`] with a suggestion.
pub fn find(project: &Path, name: &str) -> Result<Entry, ScenarioError> {
    if name.contains('/') || name.ends_with(".yaml") || name.ends_with(".yml") {
        return file(Path::new(name));
    }
    let all = list(project)?;
    if let Some(entry) = all.iter().find(|e| e.name == name) {
        return Ok(entry.clone());
    }
    let names: Vec<String> = all.into_iter().map(|e| e.name).collect();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names.join(", ")),
    };
    Err(ScenarioError::Unknown { name: name.to_owned(), hint })
}

fn file(path: &Path) -> Result<Entry, ScenarioError> {
    let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Entry { name, path: path.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aksim_model::advice::Advice;

    #[test]
    fn every_scenario_that_comes_with_aksim_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let all = list(folder.path()).unwrap();
        let properties = ["horizontal-scaling", "load-balancing", "secret-management", "self-healing"];
        for name in properties {
            assert!(all.iter().any(|e| e.name == name), "{name} is missing");
        }
        for entry in all {
            let scenario = entry.read(&BTreeMap::new()).map_err(|e| format!("{e:?}")).unwrap();
            assert!(scenario.steps.iter().any(|s| !s.checks.is_empty()), "{} checks nothing", entry.name);
        }
    }

    #[test]
    fn a_scenario_of_the_project_hides_the_one_of_the_same_name_and_typos_are_met() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("scenarios")).unwrap();
        std::fs::write(folder.path().join("scenarios/self-healing.yaml"), "title: mine").unwrap();
        assert_eq!(find(folder.path(), "self-healing").unwrap().text, "title: mine");
        let unknown = find(folder.path(), "self-heeling").unwrap_err();
        assert_eq!(unknown.hint().as_deref(), Some("did you mean `self-healing`?"));
    }
}
