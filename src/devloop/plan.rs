//! Which services a file belongs to, what follows from its change, and why. Pure.

use aksim_config::ServiceConfig;
use aksim_model::ids::ServiceName;
use ignore::gitignore::Gitignore;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What a changed file asks for, from cheap to dear.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Copy the file into running containers.
    Sync {
        /// File on the host.
        from: PathBuf,
        /// Path in the container.
        to: String,
    },
    /// Apply the manifests with the image as it is.
    Apply,
    /// Build, push, roll out.
    Rebuild,
}

/// What follows for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The service.
    pub service: ServiceName,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
    /// Which key of `aksim.toml` says so.
    pub why: String,
}

/// Why a file belongs to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason", content = "rule")]
pub enum Unplanned {
    /// Ignored by a rule.
    Ignored(String),
    /// No service watches it.
    Unwatched,
}

/// Files that editors and tools write beside the real ones.
const NOISE: [&str; 8] = [".swp", ".swx", ".swo", "~", ".tmp", ".lock", "4913", ".DS_Store"];
/// Folders of tools' output, wherever they are.
const OUTPUT: [&str; 7] = [".git", "target", "node_modules", ".aksim", "__pycache__", ".venv", ".idea"];

/// The plan of a project: services and ignore rules.
pub struct Plan {
    services: Vec<ServiceConfig>,
    ignore: Gitignore,
    root: PathBuf,
}

impl Plan {
    /// Reads the project's `.gitignore` (a broken line of it is passed over, as git does).
    pub fn new(root: &Path, services: Vec<ServiceConfig>) -> Self {
        let (ignore, _) = Gitignore::new(root.join(".gitignore"));
        Self { services, ignore, root: root.to_owned() }
    }

    /// What follows from a change of `file` (absolute), at most one decision a service.
    ///
    /// # Errors
    /// [`Unplanned`] when nothing does.
    pub fn decide(&self, file: &Path) -> Result<Vec<Decision>, Unplanned> {
        if let Some(rule) = self.ignored(file) {
            return Err(Unplanned::Ignored(rule));
        }
        let decisions: Vec<Decision> = self.services.iter().filter_map(|s| self.decide_for(s, file)).collect();
        if decisions.is_empty() { Err(Unplanned::Unwatched) } else { Ok(decisions) }
    }

    fn ignored(&self, file: &Path) -> Option<String> {
        let relative = file.strip_prefix(&self.root).unwrap_or(file);
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(noise) =
            NOISE.iter().find(|n| name.ends_with(**n) && name != "Cargo.lock" && !name.ends_with("-lock.json"))
        {
            return Some(format!("temporary files of editors and tools (*{noise})"));
        }
        let folder = relative.components().find_map(|c| OUTPUT.iter().find(|o| c.as_os_str() == **o));
        if let Some(folder) = folder {
            return Some(format!("output folder {folder}"));
        }
        let matched = self.ignore.matched_path_or_any_parents(relative, false);
        matched.inner().filter(|_| matched.is_ignore()).map(|glob| format!(".gitignore: {}", glob.original()))
    }

    fn decide_for(&self, service: &ServiceConfig, file: &Path) -> Option<Decision> {
        let decision = |action, why: String| Some(Decision { service: service.name.clone(), action, why });
        let shown = |path: &Path| path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        for (from, to) in &service.sync {
            if let Ok(rest) = file.strip_prefix(from) {
                let to = match rest.as_os_str().is_empty() {
                    true => to.clone(),
                    false => format!("{}/{}", to.trim_end_matches('/'), rest.display()),
                };
                return decision(Action::Sync { from: file.to_owned(), to }, format!("sync from {}", shown(from)));
            }
        }
        if let Some(manifests) = service.manifests.iter().find(|m| file.starts_with(m)) {
            return decision(Action::Apply, format!("manifests {}", shown(manifests)));
        }
        if file == service.dockerfile {
            return decision(Action::Rebuild, "dockerfile".into());
        }
        let watched = service.watch.iter().find(|w| file.starts_with(w))?;
        decision(Action::Rebuild, format!("watch {}", shown(watched)))
    }

    /// The services in dependency order.
    pub fn services(&self) -> &[ServiceConfig] {
        &self.services
    }

    /// A service by name.
    pub fn service(&self, name: &ServiceName) -> Option<&ServiceConfig> {
        self.services.iter().find(|s| &s.name == name)
    }

    /// Folders to watch, none below another.
    pub fn watched_folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = self
            .services
            .iter()
            .flat_map(|s| {
                let files = s.watch.iter().chain(&s.manifests).chain(s.sync.iter().map(|(from, _)| from));
                files.cloned().chain([s.dockerfile.clone()])
            })
            .map(|path| if path.is_dir() { path } else { path.parent().unwrap_or(&self.root).to_owned() })
            .filter(|folder| folder.is_dir())
            .collect();
        folders.sort();
        folders.dedup();
        let all = folders.clone();
        folders.retain(|f| !all.iter().any(|other| other != f && f.starts_with(other)));
        folders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> (tempfile::TempDir, Plan) {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["web/src", "web/static", "web/k8s", "api/src"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join(".gitignore"), "*.log\n").unwrap();
        let text = r#"
name = "shop"
[[service]]
name = "web"
path = "web"
watch = ["src", "../api/src/shared.rs"]
sync = [{ from = "static", to = "/srv/static" }]
[[service]]
name = "api"
path = "api"
"#;
        let config = aksim_config::project::parse(text, dir.path()).unwrap();
        let plan = Plan::new(dir.path(), config.services);
        (dir, plan)
    }

    #[test]
    fn a_file_may_belong_to_two_services() {
        let (dir, plan) = plan();
        let decisions = plan.decide(&dir.path().join("api/src/shared.rs")).unwrap();
        assert_eq!(decisions.len(), 2);
        assert!(decisions.iter().all(|d| d.action == Action::Rebuild));
    }

    #[test]
    fn the_cheapest_action_that_will_do() {
        let (dir, plan) = plan();
        let sync = plan.decide(&dir.path().join("web/static/css/a.css")).unwrap();
        assert!(matches!(&sync[0].action, Action::Sync { to, .. } if to == "/srv/static/css/a.css"));
        assert_eq!(plan.decide(&dir.path().join("web/k8s/web.yaml")).unwrap()[0].action, Action::Apply);
        assert_eq!(plan.decide(&dir.path().join("web/Dockerfile")).unwrap()[0].action, Action::Rebuild);
    }

    #[test]
    fn noise_is_named() {
        let (dir, plan) = plan();
        for (file, rule) in [
            ("api/src/.main.rs.swp", "temporary files of editors and tools (*.swp)"),
            ("api/target/debug/x", "output folder target"),
            ("api/run.log", ".gitignore: *.log"),
        ] {
            assert_eq!(plan.decide(&dir.path().join(file)), Err(Unplanned::Ignored(rule.into())));
        }
        assert_eq!(plan.decide(&dir.path().join("README.md")), Err(Unplanned::Unwatched));
    }
}
