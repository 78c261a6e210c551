//! Validation: from the raw project file to what the rest of aksim relies on.

use super::{
    check::{self, Problem},
    document::Tree,
    raw,
};
use aksim_model::{
    advice::{Advice, ExitClass},
    ids::{EnvironmentName, ServiceName},
    image_ref::ImageRef,
    suggest::nearest,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// File name of a project.
pub const FILE_NAME: &str = "aksim.toml";

/// What `[cluster] provider` may be: those that the simulator has.
pub const CLUSTER_PROVIDERS: &[&str] = &["embedded"];

/// A validated project.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the environment.
    pub name: EnvironmentName,
    /// Folder of `aksim.toml`.
    pub root: PathBuf,
    /// The cluster that it runs in, one of [`CLUSTER_PROVIDERS`].
    pub provider: String,
    /// Kubernetes minor version asked for.
    pub kubernetes: String,
    /// Node pools, at least one.
    pub node_pools: Vec<raw::NodePool>,
    /// Registry name, without `.azurecr.io`.
    pub registry: String,
    /// Port asked for the registry.
    pub registry_port: Option<u16>,
    /// Database server.
    pub database: Option<DatabaseConfig>,
    /// Tenant name.
    pub tenant: String,
    /// Users.
    pub users: Vec<raw::User>,
    /// Applications.
    pub apps: Vec<raw::App>,
    /// Groups that administer the cluster.
    pub cluster_admin_groups: Vec<String>,
    /// Port asked for the issuer.
    pub identity_port: Option<u16>,
    /// Port asked for the ingress.
    pub ingress_port: Option<u16>,
    /// Pipelines.
    pub pipelines: raw::Pipelines,
    /// Git host.
    pub git: GitConfig,
    /// Services, each after those it depends on.
    pub services: Vec<ServiceConfig>,
}

/// A validated database section.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Name without `.mysql.database.azure.com`.
    pub name: String,
    /// Server binary, or `None` to look for one.
    pub binary: Option<PathBuf>,
    /// Port asked for.
    pub port: Option<u16>,
}

/// A validated Git section, or what holds without one.
#[derive(Clone, Debug)]
pub struct GitConfig {
    /// Whether the project has the section: then a missing git is an error.
    pub asked: bool,
    /// Organization.
    pub organization: String,
    /// The project's repository.
    pub repository: String,
    /// Branch that a clone checks out.
    pub default_branch: String,
    /// Patterns of protected branches.
    pub protected: Vec<String>,
    /// Contexts that a protected branch requires.
    pub required_statuses: Vec<String>,
    /// Users and groups that may push; `None` for every user.
    pub writers: Option<Vec<String>>,
    /// Receivers of pushes.
    pub webhooks: Vec<raw::Webhook>,
    /// Port asked for.
    pub port: Option<u16>,
}

/// A validated service.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Name.
    pub name: ServiceName,
    /// Its folder, absolute.
    pub path: PathBuf,
    /// Host command before the image build; empty for none.
    pub build: Vec<String>,
    /// Build context, absolute.
    pub context: PathBuf,
    /// Dockerfile, absolute.
    pub dockerfile: PathBuf,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// Image without tag.
    pub image: ImageRef,
    /// Manifest files and folders, absolute.
    pub manifests: Vec<PathBuf>,
    /// Schema name.
    pub database: Option<String>,
    /// Watched files and folders, absolute.
    pub watch: Vec<PathBuf>,
    /// Synced folders: absolute host path, absolute container path.
    pub sync: Vec<(PathBuf, String)>,
    /// Services it depends on.
    pub depends_on: Vec<ServiceName>,
}

/// Why a project cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no project here.
    #[error("no {FILE_NAME} in {} or above it", start.display())]
    NotFound {
        /// Where the search began.
        start: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not right.
    #[error("{}: {} problem(s)", path.display(), problems.len())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Its text, for excerpts.
        text: String,
        /// All of them, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl Advice for ConfigError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NotFound { .. } => Some("make one with `aksim init`, or name its folder with --project".into()),
            _ => None,
        }
    }

    fn class(&self) -> ExitClass {
        ExitClass::Usage
    }
}

/// Finds the project file in `start` or the nearest folder above.
///
/// # Errors
/// [`ConfigError::NotFound`].
pub fn find(start: &Path) -> Result<PathBuf, ConfigError> {
    start
        .ancestors()
        .map(|dir| dir.join(FILE_NAME))
        .find(|file| file.is_file())
        .ok_or_else(|| ConfigError::NotFound { start: start.to_owned() })
}

/// Reads and validates a project file.
///
/// # Errors
/// [`ConfigError`], with every problem of the file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(read)?;
    let absolute = std::path::absolute(path).map_err(read)?;
    let root = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    parse(&text, &root).map_err(|problems| ConfigError::Invalid { path: path.to_owned(), text, problems })
}

/// Validates the text of a project file that lies in `root`.
///
/// # Errors
/// Every problem of the text.
pub fn parse(text: &str, root: &Path) -> Result<Config, Vec<Problem>> {
    let (table, errors) = toml::de::DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(from_toml).collect());
    }
    let document = Tree::of_toml(table.get_ref(), table.span());
    let problems = check::check(&document, &super::json_schema(), check::TOML, &check::NoKinds);
    if !problems.is_empty() {
        return Err(problems);
    }
    let project: raw::Project = toml::from_str(text).map_err(|e| vec![from_toml(&e)])?;
    let mut validator = Validator { document: &document, problems: Vec::new() };
    let config = validator.project(project, root);
    match validator.problems.is_empty() {
        true => Ok(config),
        false => Err(validator.problems),
    }
}

fn from_toml(error: &toml::de::Error) -> Problem {
    Problem { span: error.span().unwrap_or(0..0), message: error.message().trim().to_owned(), hint: None }
}

struct Validator<'t> {
    document: &'t Tree,
    problems: Vec<Problem>,
}

impl Validator<'_> {
    /// A problem of the value at `at`, a path of keys and indices.
    fn problem(&mut self, at: &str, message: String, hint: Option<&str>) {
        let span = self.document.place(at);
        self.problems.push(Problem { span, message, hint: hint.map(str::to_owned) });
    }

    fn project(&mut self, project: raw::Project, root: &Path) -> Config {
        self.dns_label(&project.name, "name");
        self.provider(&project.cluster.provider);
        if project.cluster.kubernetes != "1.36" {
            let message = format!("the embedded cluster is Kubernetes 1.36, not `{}`", project.cluster.kubernetes);
            self.problem("cluster.kubernetes", message, Some("use kubernetes = \"1.36\""));
        }
        let node_pools = self.node_pools(project.cluster.node_pools);
        let registry = project.registry.name.unwrap_or_else(|| format!("{}acr", project.name.replace('-', "")));
        if !(5..=50).contains(&registry.len())
            || !registry.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        {
            self.problem(
                "registry.name",
                format!("registry name `{registry}` must be 5 to 50 lower-case letters and digits"),
                None,
            );
        }
        self.dns_label(&project.identity.tenant, "identity.tenant");
        let database = project.database.map(|d| self.database(d));
        let git = self.git(project.git, &project.name, &project.identity);
        let services = self.services(project.services, root, &registry, database.is_some());
        self.apps(&project.identity.apps);
        Config {
            name: EnvironmentName::new(project.name),
            root: root.to_owned(),
            provider: project.cluster.provider,
            kubernetes: project.cluster.kubernetes,
            node_pools,
            registry,
            registry_port: project.registry.port,
            database,
            tenant: project.identity.tenant,
            users: project.identity.users,
            apps: project.identity.apps,
            cluster_admin_groups: project.identity.cluster_admin_groups,
            identity_port: project.identity.port,
            ingress_port: project.ingress.port,
            pipelines: project.pipelines,
            git,
            services,
        }
    }

    fn dns_label(&mut self, value: &str, key: &str) {
        if !is_dns_label(value) {
            let message = format!("`{key}`: `{value}` is not a DNS label");
            self.problem(key, message, Some("use lower-case letters, digits and hyphens, at most 63"));
        }
    }

    fn provider(&mut self, asked: &str) {
        if !CLUSTER_PROVIDERS.contains(&asked) {
            let message = format!("cluster provider `{asked}` is not available in this release");
            let known: Vec<String> = CLUSTER_PROVIDERS.iter().map(|known| format!("provider = \"{known}\"")).collect();
            self.problem("cluster.provider", message, Some(&format!("use {}", known.join(" or "))));
        }
    }

    fn node_pools(&mut self, pools: Vec<raw::NodePool>) -> Vec<raw::NodePool> {
        for (index, pool) in pools.iter().enumerate() {
            let at = |key: &str| format!("cluster.node-pools[{index}].{key}");
            let name_ok = (1..=12).contains(&pool.name.len())
                && pool.name.starts_with(|c: char| c.is_ascii_lowercase())
                && pool.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            if !name_ok {
                let message = format!("node pool name `{}` must be 1 to 12 lower-case letters and digits", pool.name);
                self.problem(&at("name"), message, None);
            }
            if !["System", "User"].contains(&pool.mode.as_str()) {
                self.problem(&at("mode"), format!("node pool mode `{}` is neither System nor User", pool.mode), None);
            }
            if pool.simulated {
                let message = format!("node pool `{}`: simulated nodes are not available in this release", pool.name);
                self.problem(&at("simulated"), message, Some("leave `simulated` out"));
            }
        }
        if pools.is_empty() {
            return vec![raw::NodePool {
                name: "nodepool1".into(),
                mode: "System".into(),
                count: 1,
                simulated: false,
                vm_size: "Standard_D2s_v5".into(),
                zones: Vec::new(),
                labels: BTreeMap::new(),
                taints: Vec::new(),
            }];
        }
        pools
    }

    fn database(&mut self, database: raw::Database) -> DatabaseConfig {
        self.dns_label(&database.name, "database.name");
        let binary = match database.engine.as_str() {
            "auto" | "process" => None,
            other => match other.strip_prefix("process:") {
                Some(path) => Some(PathBuf::from(path)),
                None => {
                    let message = format!("database engine `{other}` is not available in this release");
                    self.problem(
                        "database.engine",
                        message,
                        Some("use `auto`, `process` or `process:/path/to/mysqld`"),
                    );
                    None
                }
            },
        };
        DatabaseConfig { name: database.name, binary, port: database.port }
    }

    fn git(&mut self, git: Option<raw::Git>, project: &str, identity: &raw::Identity) -> GitConfig {
        let asked = git.is_some();
        let git = git.unwrap_or_default();
        let organization = git.organization.unwrap_or_else(|| identity.tenant.clone());
        let repository = git.repository.unwrap_or_else(|| project.to_owned());
        for (key, value) in [("git.organization", &organization), ("git.repository", &repository)] {
            if asked && !is_git_name(value) {
                let message = format!("`{key}`: `{value}` cannot be part of a repository's URL");
                self.problem(key, message, Some("use letters, digits, `-`, `_` and `.`, at most 100"));
            }
        }
        let known: BTreeSet<String> =
            identity.users.iter().flat_map(|u| u.groups.iter().chain([&u.name])).cloned().collect();
        let writers = git.writers.iter().flatten().enumerate();
        for (index, writer) in writers.filter(|(_, writer)| !known.contains(*writer)) {
            let hint = nearest(writer, known.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`?"));
            let message = format!("`git.writers`: no user or group is named `{writer}`");
            self.problem(&format!("git.writers[{index}]"), message, hint.as_deref());
        }
        for (index, hook) in git.webhooks.iter().enumerate() {
            let at = |key: &str| format!("git.webhooks[{index}].{key}");
            if !url::Url::parse(&hook.url).is_ok_and(|u| ["http", "https"].contains(&u.scheme())) {
                self.problem(&at("url"), format!("webhook `{}` is not an http or https URL", hook.url), None);
            }
            if !["json", "form"].contains(&hook.content_type.as_str()) {
                let message = format!("content type `{}` of a webhook is neither json nor form", hook.content_type);
                self.problem(&at("content-type"), message, None);
            }
        }
        GitConfig {
            asked,
            organization,
            repository,
            default_branch: git.default_branch.unwrap_or_else(|| "main".to_owned()),
            protected: git.protected,
            required_statuses: git.required_statuses,
            writers: git.writers,
            webhooks: git.webhooks,
            port: git.port,
        }
    }

    fn apps(&mut self, apps: &[raw::App]) {
        for (index, app) in apps.iter().enumerate() {
            let at = |key: &str| format!("identity.apps[{index}].{key}");
            if let Some(id) = &app.client_id
                && uuid::Uuid::parse_str(id).is_err()
            {
                self.problem(
                    &at("client-id"),
                    format!("client id `{id}` of application `{}` is not a UUID", app.name),
                    None,
                );
            }
            for (index, uri) in app.redirect_uris.iter().enumerate() {
                if url::Url::parse(uri).is_err() {
                    let message = format!("redirect URI `{uri}` of application `{}` is not a URL", app.name);
                    self.problem(&at(&format!("redirect-uris[{index}]")), message, None);
                }
            }
        }
    }

    fn services(
        &mut self,
        services: Vec<raw::Service>,
        root: &Path,
        registry: &str,
        has_database: bool,
    ) -> Vec<ServiceConfig> {
        let names: BTreeSet<String> = services.iter().map(|s| s.name.clone()).collect();
        let mut seen = BTreeSet::new();
        for (index, service) in services.iter().enumerate() {
            let at = |key: &str| format!("service[{index}].{key}");
            self.dns_label(&service.name, &at("name"));
            if !seen.insert(service.name.clone()) {
                self.problem(&at("name"), format!("two services are named `{}`", service.name), None);
            }
            if service.database.is_some() && !has_database {
                let message = format!("service `{}` has a database but there is no [database] section", service.name);
                self.problem(&at("database"), message, Some("add [database] with a name"));
            }
            for (index, dependency) in service.depends_on.iter().enumerate() {
                if !names.contains(dependency) {
                    let hint =
                        nearest(dependency, names.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`?"));
                    let message = format!("service `{}` depends on unknown service `{dependency}`", service.name);
                    self.problem(&at(&format!("depends-on[{index}]")), message, hint.as_deref());
                }
            }
        }
        let services = services.into_iter().enumerate();
        let valid = services.filter_map(|(index, s)| Some((index, self.service(index, s, root, registry)?))).collect();
        self.in_dependency_order(valid)
    }

    fn service(&mut self, index: usize, service: raw::Service, root: &Path, registry: &str) -> Option<ServiceConfig> {
        let at = |key: &str| format!("service[{index}].{key}");
        let path = self.inside(root, root, &service.path, &at("path"))?;
        if !path.is_dir() {
            let message = format!("service `{}`: folder {} does not exist", service.name, path.display());
            self.problem(&at("path"), message, None);
        }
        let context = match &service.context {
            Some(context) => self.inside(root, root, context, &at("context"))?,
            None => path.clone(),
        };
        let dockerfile = self.inside(root, &path, &service.dockerfile, &at("dockerfile"))?;
        let mut below = |list: &[String], key: &str| -> Option<Vec<PathBuf>> {
            let items = list.iter().enumerate();
            items.map(|(index, item)| self.inside(root, &path, item, &at(&format!("{key}[{index}]")))).collect()
        };
        let manifests = below(&service.manifests, "manifests")?;
        let watch = if service.watch.is_empty() { vec![path.clone()] } else { below(&service.watch, "watch")? };
        let mut sync = Vec::new();
        for (index, pair) in service.sync.iter().enumerate() {
            let at = |key: &str| at(&format!("sync[{index}].{key}"));
            if !pair.to.starts_with('/') {
                self.problem(&at("to"), format!("sync target `{}` must be an absolute path", pair.to), None);
            }
            sync.push((self.inside(root, &path, &pair.from, &at("from"))?, pair.to.clone()));
        }
        let repository = service.image.as_deref().unwrap_or(&service.name);
        let image = match format!("{registry}.azurecr.io/{repository}").parse::<ImageRef>() {
            Ok(image) => image,
            Err(error) => {
                self.problem(&at("image"), error.to_string(), None);
                return None;
            }
        };
        Some(ServiceConfig {
            name: ServiceName::new(service.name),
            path,
            build: service.build,
            context,
            dockerfile,
            build_args: service.build_args,
            image,
            manifests,
            database: service.database,
            watch,
            sync,
            depends_on: service.depends_on.iter().map(|d| ServiceName::new(d.clone())).collect(),
        })
    }

    /// Resolves `relative` below `base`, and refuses paths that leave the project.
    fn inside(&mut self, root: &Path, base: &Path, relative: &str, at: &str) -> Option<PathBuf> {
        let mut resolved = base.to_owned();
        for component in Path::new(relative).components() {
            match component {
                Component::Normal(part) => resolved.push(part),
                Component::CurDir => {}
                Component::ParentDir => {
                    resolved.pop();
                }
                Component::RootDir | Component::Prefix(_) => {
                    self.problem(at, format!("path `{relative}` must be relative"), None);
                    return None;
                }
            }
        }
        if !resolved.starts_with(root) {
            self.problem(at, format!("path `{relative}` leaves the project"), None);
            return None;
        }
        Some(resolved)
    }

    /// Services with their places in the file, each after those it depends on.
    fn in_dependency_order(&mut self, mut waiting: Vec<(usize, ServiceConfig)>) -> Vec<ServiceConfig> {
        let mut ordered: Vec<ServiceConfig> = Vec::new();
        while !waiting.is_empty() {
            let known: BTreeSet<ServiceName> = waiting.iter().map(|(_, s)| s.name.clone()).collect();
            let (ready, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, s)| s.depends_on.iter().all(|d| !known.contains(d)));
            if let (true, Some((first, _))) = (ready.is_empty(), rest.first()) {
                let cycle: Vec<&str> = rest.iter().map(|(_, s)| s.name.as_str()).collect();
                let message = format!("services depend on each other in a circle: {}", cycle.join(", "));
                self.problem(&format!("service[{first}].depends-on"), message, None);
                return ordered;
            }
            ordered.extend(ready.into_iter().map(|(_, service)| service));
            waiting = rest;
        }
        ordered
    }
}

/// Whether a text can be the name of an organization or repository.
fn is_git_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !text.starts_with(['.', '-'])
        && ![".", ".git", ".lock"].iter().any(|end| text.ends_with(end))
}

/// Whether a text is a DNS-1123 label.
pub fn is_dns_label(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1])
        && bytes.iter().all(|&b| edge(b) || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        match parse(text, Path::new("/project")) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .into_iter()
                .map(|p| format!("{}{}", p.message, p.hint.map_or(String::new(), |h| format!(" ({h})"))))
                .collect(),
        }
    }

    #[test]
    fn all_unknown_keys_at_once_with_suggestions() {
        let text = "name = \"shop\"\n[regstry]\nname = \"x\"\n[database]\nname = \"db\"\nengin = \"auto\"\n[cluster]\nkubernetes = 1\n";
        assert_eq!(
            problems(text),
            [
                "unknown key `regstry` (did you mean `registry`?)",
                "unknown key `database.engin` (did you mean `engine`?)",
                "`cluster.kubernetes` must be string, not an integer"
            ]
        );
    }

    #[test]
    fn a_minimal_project_has_defaults() {
        let config = parse("name = \"shop\"", Path::new("/project")).unwrap();
        assert_eq!(config.registry, "shopacr");
        assert_eq!(config.node_pools[0].name, "nodepool1");
        assert_eq!(config.tenant, "contoso");
    }

    #[test]
    fn paths_stay_in_the_project_and_dependencies_exist() {
        let text = "name = \"shop\"\n[[service]]\nname = \"a\"\npath = \"../a\"\ndepends-on = [\"b\"]\n";
        let found = problems(text);
        assert!(found.contains(&"path `../a` leaves the project".to_owned()), "{found:?}");
        assert!(found.iter().any(|p| p.contains("unknown service `b`")), "{found:?}");
    }

    #[test]
    fn a_problem_is_told_at_its_own_place_though_the_value_stands_elsewhere_too() {
        let text = "name = 'shop'\n[identity]\ntenant = \"b\"\n[[service]]\nname = 'a'\npath = 'a'\n\
            depends-on = [ 'b' ]\n[[service]]\nname = 'a'\npath = '../a'\nwatch = ['x', '/x']\n";
        let found = parse(text, Path::new("/project")).unwrap_err();
        let told: Vec<(usize, &str)> =
            found.iter().map(|p| (text[..p.span.start].lines().count(), &text[p.span.clone()])).collect();
        assert_eq!(told, [(7, "'b'"), (9, "'a'"), (6, "'a'"), (10, "'../a'")], "{found:?}");
    }

    #[test]
    fn order_follows_dependencies() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let text = "name = \"shop\"\n[[service]]\nname = \"a\"\npath = \"a\"\ndepends-on = [\"b\"]\n[[service]]\nname = \"b\"\npath = \"b\"\n";
        let config = parse(text, dir.path()).unwrap();
        let names: Vec<_> = config.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let found = parse("name = ", Path::new("/")).unwrap_err();
        assert!(!found.is_empty());
    }
}
