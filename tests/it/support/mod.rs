//! The one environment builder of the integration tests: a project in a temporary folder, its
//! state in another, and the real program run in it.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// The program under test.
pub const AKSIM: &str = env!("CARGO_BIN_EXE_aksim");

/// Where `aksim doctor --fix` puts what it installs for itself.
fn tools() -> PathBuf {
    std::env::var_os("AKSIM_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
        std::env::var_os("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), PathBuf::from).join("aksim/tools")
    })
}

/// Python with the packages that the tests need.
///
/// # Panics
/// As [`client`].
pub fn python() -> PathBuf {
    let python = tools().join("venv/bin/python");
    assert!(python.exists(), "{} is missing; hint: aksim doctor --fix", python.display());
    python
}

/// Path of a program that the tests need.
///
/// # Panics
/// With a hint when it is missing: a test that lacks its client fails.
pub fn client(name: &str) -> PathBuf {
    let tools = tools();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [tools.join("bin"), "/usr/sbin".into()].into_iter().chain(std::env::split_paths(&path));
    let found = folders.map(|f| f.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed; hint: aksim doctor --fix"))
}

/// A project with its own state.
pub struct Project {
    folder: TempDir,
    home: TempDir,
    program: PathBuf,
    user: Option<u32>,
}

impl Project {
    /// An empty project of this text.
    pub fn new(config: &str) -> Self {
        let project =
            Self { folder: TempDir::new().unwrap(), home: TempDir::new().unwrap(), program: AKSIM.into(), user: None };
        project.write("aksim.toml", config);
        project
    }

    /// A project with one service, `web`: busybox's HTTP server in an image from scratch.
    pub fn busybox(name: &str) -> Self {
        let project = Self::new(&format!(
            "name = \"{name}\"\n\n[[service]]\nname = \"web\"\npath = \"web\"\nsync = [{{ from = \"static\", to = \"/srv\" }}]\n"
        ));
        project.write(
            "web/Dockerfile",
            "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nCOPY static /srv\nENTRYPOINT [\"/bin/busybox\"]\n\
             CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/srv\"]\n",
        );
        project.write("web/static/index.html", "first\n");
        project.write(
            "web/k8s/web.yaml",
            &WEB.replace("ACR", &format!("{}acr.azurecr.io", name.replace('-', ""))).replace("HOST", name),
        );
        std::fs::copy(client("busybox"), project.path("web/busybox")).unwrap();
        project
    }

    /// The same project as an ordinary user: who runs the tests, or user id 54321 if that is root.
    pub fn for_ordinary_user(mut self) -> Self {
        const ORDINARY: u32 = 54321;
        if nix::unistd::geteuid().is_root() {
            // Root's own folders may be closed to the user.
            self.program = self.path("aksim");
            std::fs::hard_link(AKSIM, &self.program)
                .or_else(|_| std::fs::copy(AKSIM, &self.program).map(drop))
                .unwrap();
            for folder in [self.folder.path(), self.home.path()] {
                std::os::unix::fs::chown(folder, Some(ORDINARY), Some(ORDINARY)).unwrap();
            }
            self.user = Some(ORDINARY);
        }
        self
    }

    /// A path in the project.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// The state folder of all environments of this project.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file of the project.
    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A command of the program in this project, with its own state and nothing of the user's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(user) = self.user {
            // Groups of root go with the change of the user.
            command.uid(user).gid(user).env("HOME", self.home.path());
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("AKSIM_HOME", self.home.path())
            .env("CI", "true")
            .env("NO_COLOR", "1")
            .env_remove("AKSIM_PROJECT")
            // It is for the test binaries: see `.ci/run`.
            .env_remove("RUSTC_BOOTSTRAP")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program and takes its standard output.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "aksim {arguments:?}: {}\n{}", output.status, text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Brings the environment up behind.
    pub fn up(&self) {
        let output = self.run(&["up", "--detach"]);
        if !output.status.success() {
            let logs = self.environment_home().join("logs/aksim.log");
            let log = std::fs::read_to_string(logs).unwrap_or_default();
            panic!("up: {}\n{}\nlog:\n{log}", output.status, text(&output));
        }
    }

    /// State folder of the environment.
    pub fn environment_home(&self) -> PathBuf {
        let config = std::fs::read_to_string(self.path("aksim.toml")).unwrap();
        let name = config.lines().find_map(|l| l.strip_prefix("name = \"")?.strip_suffix('"')).unwrap().to_owned();
        self.home.path().join(name)
    }

    /// The newest kubectl against the environment.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command("kubectl-1.33", arguments).output().unwrap()
    }

    /// A kubectl of a name (`kubectl-1.27`) against the environment.
    pub fn kubectl_command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(client(program));
        command.args(arguments).env("KUBECONFIG", self.environment_home().join("kubeconfig")).env("HOME", self.home());
        command
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Whatever the test did, nothing of it may stay. The output says why it could not be.
        let output = self.run(&["down", "--purge"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("down --purge: {}", text(&output));
        }
    }
}

/// Both streams of an ended process.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const WEB: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: ACR/web:dev
        ports: [{containerPort: 8080}]
        readinessProbe:
          httpGet: {path: /index.html, port: 8080}
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
spec:
  ingressClassName: webapprouting.kubernetes.azure.com
  rules:
  - host: HOST.localhost
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: web, port: {number: 80}}}
"#;
