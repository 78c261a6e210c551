//! `aksim pipeline` with its exit codes, and the tasks of a cluster, in one environment.

use super::support::DEADLINE;
use crate::support::{Project, client, text};
use aksim::{
    model::pipeline::PipelineRun,
    pipelines::record::{Outcome, RunRecord},
};

fn code(project: &Project, arguments: &[&str]) -> (Option<i32>, String) {
    let output = project.run(arguments);
    (output.status.code(), text(&output))
}

#[test]
fn files_are_planned_and_checked_without_an_environment() {
    let project = Project::new("name = \"it-plan\"\n");
    project.write(
        "good.yml",
        "parameters:\n- name: where\n  type: string\n  default: here\nsteps:\n- bash: echo ${{ parameters.where }}\n- task: AzureKeyVault@2\n  inputs: {azureSubscription: s, KeyVaultName: v}\n",
    );
    project.write("bad.yml", "steps:\n- bash: echo a\n- bosh: echo b\n");
    let plan: serde_json::Value =
        serde_json::from_str(&project.ok(&["pipeline", "plan", "good.yml", "-p", "where=there", "-o", "json"]))
            .unwrap();
    assert_eq!(plan["stages"][0]["jobs"][0]["work"]["steps"].as_array().map(Vec::len), Some(3), "{plan:#}");
    assert!(plan.to_string().contains("echo there"), "{plan:#}");
    assert!(project.ok(&["pipeline", "plan", "good.yml"]).contains("echo here"));
    let valid: serde_json::Value =
        serde_json::from_str(&project.ok(&["pipeline", "validate", "good.yml", "-o", "json"])).unwrap();
    assert_eq!(valid, serde_json::json!({"valid": true, "stages": 1, "jobs": 1, "unsupported": 1}));
    let gaps = project.ok(&["pipeline", "plan", "good.yml", "--fidelity"]);
    assert!(gaps.contains("good.yml:7:") && gaps.contains("AzureKeyVault") && gaps.contains("gap"), "{gaps}");
    for verb in ["plan", "validate"] {
        let (status, said) = code(&project, &["pipeline", verb, "bad.yml"]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("bad.yml:3:") && said.contains("bosh") && said.contains("1 mistake"), "{said}");
        let (status, said) = code(&project, &["pipeline", verb, "none.yml"]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("none.yml"), "{said}");
    }
    assert_eq!(code(&project, &["pipeline", "plan", "good.yml", "-p", "where"]).0, Some(2));
    assert_eq!(code(&project, &["pipeline", "plan", "good.yml", "-p", "unknown=1"]).0, Some(2));
    // What needs the environment says that there is none.
    let (status, said) = code(&project, &["pipeline", "list"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("aksim up"), "{said}");
}

/// An environment with the tools of pipelines, and its project as a git repository.
struct Environment {
    project: Project,
}

impl Environment {
    fn up() -> Self {
        let project = Project::busybox("it-tasks");
        std::fs::create_dir(project.path("tools")).unwrap();
        for (name, version) in [("kubectl", "kubectl-1.33"), ("helm", "helm-1.33")] {
            std::os::unix::fs::symlink(client(version), project.path("tools").join(name)).unwrap();
        }
        let environment = Self { project };
        for (file, text) in FILES {
            environment.project.write(file, text);
        }
        let tools = environment.project.path("tools").display().to_string();
        environment.project.write("cluster.yml", &CLUSTER.replace("TOOLS", &tools));
        environment.git(&["init", "--quiet", "--initial-branch=main", "."]);
        environment.git(&["add", "-A"]);
        environment.git(&["commit", "--quiet", "-m", "all"]);
        environment.project.up();
        environment
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=Ada", "-c", "user.email=ada@contoso.example"]).args(arguments);
        let output = command.current_dir(self.project.path("")).env("HOME", self.project.home()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
    }

    /// Queues a run of a file of the project.
    fn queue(&self, file: &str) -> String {
        self.project.ok(&["pipeline", "run", "--folder", ".", "--file", file, "-o", "name"]).trim().to_owned()
    }

    /// Follows a run to its end: exit code, and all that was said.
    fn follow(&self, id: &str) -> (Option<i32>, String) {
        code(&self.project, &["pipeline", "logs", id, "--follow"])
    }

    /// Waits until whoever looks at the environment sees a run so.
    fn when(&self, id: &str, wanted: impl Fn(&PipelineRun) -> bool) {
        let socket = self.project.environment_home().join("control.sock");
        let client = aksim::runtime::control::ControlClient::new(&socket);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = |world: &aksim::model::world::World| {
            world.pipelines.iter().any(|run| run.id.to_string() == id && wanted(run))
        };
        runtime.block_on(async {
            let (sender, mut receiver) =
                tokio::sync::watch::channel(std::sync::Arc::new(client.world().await.unwrap()));
            let waited = tokio::time::timeout(DEADLINE, async {
                tokio::select! {
                    followed = client.follow(&sender) => panic!("the environment went away: {followed:?}"),
                    world = receiver.wait_for(|world| seen(world)) => drop(world.unwrap()),
                }
            });
            waited.await.unwrap_or_else(|_| panic!("run {id} did not get there: {}", self.show(id)));
        });
    }

    fn show(&self, id: &str) -> String {
        self.project.ok(&["pipeline", "show", id])
    }

    fn get(&self, object: &str, path: &str) -> String {
        let output = self.project.kubectl(&["get", object, "--output", &format!("jsonpath={path}")]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }
}

const FILES: &[(&str, &str)] = &[
    ("cluster/settings.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: red}\n"),
    ("cluster/doomed.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: doomed}\n"),
    (
        "cluster/other.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: doomed, namespace: other}\n",
    ),
    ("chart/Chart.yaml", "apiVersion: v2\nname: paint\nversion: 1.2.3\n"),
    ("chart/values.yaml", "color: red\nshape: round\nsize: small\n"),
    (
        "chart/templates/paint.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-paint'}\ndata: {is: '{{ .Values.size }} {{ .Values.shape }} {{ .Values.color }}'}\n",
    ),
    ("square.yaml", "shape: square\n"),
    (
        "approved.yml",
        "jobs:\n- deployment: d\n  environment: production\n  strategy:\n    runOnce:\n      deploy:\n        steps:\n        - bash: echo deployed\n",
    ),
    ("long.yml", "steps:\n- checkout: none\n- bash: |\n    echo begun\n    sleep 7650\n"),
    (
        "fails.yml",
        "steps:\n- checkout: self\n- task: PublishTestResults@2\n  inputs: {testResultsFiles: results.xml, failTaskOnFailedTests: true}\n",
    ),
    (
        "results.xml",
        "<testsuite name=\"s\"><testcase classname=\"c\" name=\"good\" time=\"1.5\"/><testcase classname=\"c\" name=\"less &lt; more\"><failure message=\"1 != 2\"/></testcase></testsuite>",
    ),
    ("gap.yml", "steps:\n- task: AzureKeyVault@2\n  inputs: {azureSubscription: s, KeyVaultName: v}\n"),
    (
        "canary.yml",
        "steps:\n- task: KubernetesManifest@1\n  inputs: {action: deploy, strategy: canary, manifests: cluster/settings.yaml}\n",
    ),
    ("wrong.yml", "steps:\n- bosh: echo\n"),
    (
        "absent.yml",
        "steps:\n- checkout: none\n- task: KubernetesManifest@1\n  inputs: {action: delete, arguments: configmap/absent}\n",
    ),
];

const CLUSTER: &str = r###"
steps:
- checkout: self
- bash: echo "##vso[task.prependpath]TOOLS"
- task: KubernetesManifest@1
  inputs: {action: deploy, manifests: 'cluster/*.yaml'}
- task: KubernetesManifest@1
  inputs:
    action: createSecret
    secretType: generic
    secretName: keys
    secretArguments: --from-literal=plain='a value' --from-file=page=web/static/index.html
- task: KubernetesManifest@1
  inputs: {action: createSecret, secretName: pull, dockerRegistryEndpoint: acr}
- task: KubernetesManifest@1
  inputs: {action: scale, kind: deployment, name: web, replicas: 1}
- task: KubernetesManifest@1
  inputs:
    action: patch
    resourceToPatch: name
    kind: deploy
    name: web
    patch: '{"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "PATCHED", "value": "yes"}]}]}}}}'
- task: KubernetesManifest@1
  inputs:
    action: patch
    resourceFileToPatch: cluster/settings.yaml
    mergeStrategy: merge
    patch: '{"data": {"merged": "yes"}}'
- task: KubernetesManifest@1
  inputs:
    action: patch
    resourceToPatch: name
    kind: configmap
    name: settings
    mergeStrategy: json
    patch: '[{"op": "replace", "path": "/data/color", "value": "green"}]'
- task: KubernetesManifest@1
  inputs: {action: delete, arguments: -n other configmap doomed}
- task: KubernetesManifest@1
  inputs: {action: delete, arguments: --ignore-not-found configmap/absent}
- task: KubectlInstaller@0
- task: Kubernetes@1
  name: got
  inputs:
    connectionType: Kubernetes Service Connection
    kubernetesServiceEndpoint: aks
    command: get
    arguments: configmap settings
    outputFormat: jsonpath={.data.color}-{.data.merged}
- bash: test "$(got.KubectlOutput)" = green-yes
- task: Kubernetes@1
  inputs:
    command: apply
    namespace: other
    useConfigurationFile: true
    configurationType: inline
    inline: |
      apiVersion: v1
      kind: ConfigMap
      metadata: {name: inline}
- task: Kubernetes@1
  inputs: {command: login}
- bash: test "`kubectl get configmap inline -n other -o name`" = configmap/inline
- task: HelmDeploy@1
  name: helm
  inputs:
    command: upgrade
    chartType: FilePath
    chartPath: chart
    releaseName: shop
    valueFile: square.yaml
    overrideValues: |
      color=blue
      size=large
- bash: |
    test "$(helm.helmExitCode)" = 0
    echo '$(helm.helmOutput)' | grep -q 'STATUS: deployed'
- task: HelmDeploy@1
  inputs: {command: package, chartType: FilePath, chartPath: chart}
- bash: test -s $(Build.ArtifactStagingDirectory)/paint-1.2.3.tgz
- task: HelmDeploy@1
  name: missing
  continueOnError: true
  inputs: {command: uninstall, arguments: nothing}
- bash: test "$(missing.helmExitCode)" = 1
"###;

/// One environment for all that needs a cluster or the service behind the command line.
#[test]
fn tasks_of_a_cluster_and_the_command_line() {
    let environment = Environment::up();
    tasks_change_the_cluster(&environment);
    runs_are_listed_shown_and_refused(&environment);
    approvals_are_asked_for_and_given(&environment);
    a_run_is_canceled(&environment);
}

fn tasks_change_the_cluster(environment: &Environment) {
    let (status, log) = environment.follow(&environment.queue("cluster.yml"));
    assert_eq!(status, Some(0), "{log}");
    let decoded = |object: &str, key: &str| {
        let value = environment.get(object, &format!("{{.data.{key}}}"));
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(decoded("secret/keys", "plain"), "a value");
    assert_eq!(decoded("secret/keys", "page"), "first\n");
    assert_eq!(environment.get("secret/keys", "{.type}"), "Opaque");
    assert_eq!(environment.get("secret/pull", "{.type}"), "kubernetes.io/dockerconfigjson");
    let docker: serde_json::Value = serde_json::from_str(&decoded("secret/pull", "\\.dockerconfigjson")).unwrap();
    let password = docker["auths"]["ittasksacr.azurecr.io"]["password"].as_str().unwrap();
    assert!(!password.is_empty() && !log.contains(password), "the registry's password is on a line");
    assert_eq!(environment.get("deployment/web", "{.spec.replicas}"), "1");
    // The strategic patch merged the one container with the one that was there.
    let container = "{.spec.template.spec.containers[*].env[0].name} {.spec.template.spec.containers[*].image}";
    assert_eq!(environment.get("deployment/web", container).split(' ').next(), Some("PATCHED"));
    assert!(environment.get("deployment/web", container).contains("/web"));
    // The namespace of the arguments counts where the step has none.
    assert_eq!(environment.get("configmap/doomed", "{.metadata.name}"), "doomed");
    let gone = environment.project.kubectl(&["get", "configmap", "doomed", "-n", "other"]);
    assert!(text(&gone).contains("NotFound"), "{}", text(&gone));
    assert_eq!(environment.get("configmap/shop-paint", "{.data.is}"), "large square blue");
    let (status, log) = environment.follow(&environment.queue("absent.yml"));
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("delete configmap/absent") && log.contains("not found"), "{log}");
}

fn runs_are_listed_shown_and_refused(environment: &Environment) {
    let project = &environment.project;
    let id = environment.queue("fails.yml");
    let (status, log) = environment.follow(&id);
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains(&format!("run {id} failed")) && log.contains(&format!("aksim pipeline show {id}")), "{log}");
    assert!(
        environment.show(&id).contains("tests: 2 tests, 1 passed, 1 failed, 0 skipped"),
        "{}",
        environment.show(&id)
    );
    let junit = project.ok(&["pipeline", "show", &id, "-o", "junit"]);
    assert!(junit.contains("tests=\"2\" failures=\"1\" skipped=\"0\""), "{junit}");
    assert!(junit.contains("<testcase classname=\"c\" name=\"good\" time=\"1.500\"></testcase>"), "{junit}");
    let failed = "name=\"less &lt; more\" time=\"0.000\"><failure message=\"1 != 2\"/>";
    assert!(junit.contains(failed), "{junit}");
    let listed: Vec<RunRecord> = serde_json::from_str(&project.ok(&["pipeline", "list", "-o", "json"])).unwrap();
    assert_eq!(listed[0].id.to_string(), id);
    assert_eq!((listed[0].result, listed.last().map(|r| r.id)), (Some(Outcome::Failed), Some(1)));
    assert!(project.ok(&["pipeline", "list", "-o", "name"]).starts_with(&format!("{id}\n")));
    let runs = listed.len();
    for (file, why) in [
        ("gap.yml", "--skip-unsupported"),
        ("canary.yml", "canaries are not deployed here"),
        ("wrong.yml", "wrong.yml:2:"),
    ] {
        let (status, said) = code(project, &["pipeline", "run", "--folder", ".", "--file", file]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
    for verb in ["show", "cancel", "rerun", "approve", "logs"] {
        let (status, said) = code(project, &["pipeline", verb, "999"]);
        assert_eq!(status, Some(1), "{verb}: {said}");
        assert!(said.contains("999"), "{verb}: {said}");
    }
    assert_eq!(project.ok(&["pipeline", "list", "-o", "name"]).lines().count(), runs, "what is refused is not queued");
}

fn approvals_are_asked_for_and_given(environment: &Environment) {
    let project = &environment.project;
    assert_eq!(code(project, &["pipeline", "environment", "--approval", "true"]).0, Some(2));
    project.ok(&["pipeline", "environment", "production", "--approval", "true"]);
    let asked = |wanted: &str| {
        let listed = project.ok(&["pipeline", "environment"]);
        let line =
            listed.lines().find(|l| l.starts_with("production")).unwrap_or_else(|| panic!("{listed}")).to_owned();
        assert!(line.contains(wanted), "{listed}");
    };
    asked("true");
    let waits = |run: &PipelineRun| run.stages.iter().any(|s| s.state == "waiting");
    let id = environment.queue("approved.yml");
    environment.when(&id, waits);
    let said = project.ok(&["pipeline", "approve", &id, "--reject", "--comment", "not today"]);
    assert!(said.contains("rejected"), "{said}");
    let (status, log) = environment.follow(&id);
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("rejected the deployment to production"), "{log}");
    let (status, said) = code(project, &["pipeline", "approve", &id]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("waits for an approval"), "{said}");
    project.ok(&["pipeline", "rerun", &id]);
    environment.when(&id, waits);
    project.ok(&["pipeline", "approve", &id]);
    let (status, log) = environment.follow(&id);
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("deployed"), "{log}");
    asked("succeeded");
    project.ok(&["pipeline", "environment", "production", "--approval", "false"]);
    asked("false");
    let (status, log) = environment.follow(&environment.queue("approved.yml"));
    assert_eq!(status, Some(0), "{log}");
}

fn a_run_is_canceled(environment: &Environment) {
    let project = &environment.project;
    let id = environment.queue("long.yml");
    // Canceled in the middle of its step.
    let mut follow = project.command(&["pipeline", "logs", &id, "--follow"]);
    let mut follow = follow.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
    assert!(lines.map_while(Result::ok).any(|l| l.ends_with("| begun")));
    let said = project.ok(&["pipeline", "cancel", &id]);
    assert!(said.contains(&format!("run {id} is being canceled")), "{said}");
    follow.wait().unwrap();
    let (status, log) = environment.follow(&id);
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains(&format!("run {id} canceled")), "{log}");
    let (status, said) = code(project, &["pipeline", "cancel", &id]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("not under way"), "{said}");
}
