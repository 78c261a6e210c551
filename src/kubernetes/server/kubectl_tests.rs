//! The server as kubectl meets it.
#![expect(clippy::disallowed_methods, reason = "a test's tasks and threads end with it")]

use super::*;
use aksim_runtime::{
    component::{Component, RunContext},
    pki::Pki,
    recorder::Recorder,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::{io::AsyncWriteExt, process::Command, task::JoinHandle};

/// The kubectl that `aksim doctor --fix` has installed, else the one of the machine.
fn program() -> std::path::PathBuf {
    let home = std::path::PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let data = std::env::var_os("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), Into::into);
    let tools = std::env::var_os("AKSIM_TOOLS").map_or_else(|| data.join("aksim/tools"), Into::into);
    let installed = tools.join("bin/kubectl-1.33");
    if installed.exists() { installed } else { "kubectl".into() }
}

/// A running server, and kubectl as its administrator.
struct Kubectl {
    dir: tempfile::TempDir,
    context: RunContext,
    running: JoinHandle<()>,
}

impl Kubectl {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
        let config = ApiServerConfig::new(dir.path().join("kubernetes"), pki.clone());
        let server = ApiServer::bind(config).await.unwrap();
        let identity = pki.issue_client("admin", &["system:masters"]).unwrap();
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server.url(),
                "certificate-authority-data": STANDARD.encode(pki.ca_pem())}}],
            "users": [{"name": "u", "user": {"client-certificate-data": STANDARD.encode(identity.certificate_pem),
                "client-key-data": STANDARD.encode(identity.key_pem)}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
        std::fs::write(dir.path().join("config"), kubeconfig.to_string()).unwrap();
        let context = RunContext::detached(Recorder::in_memory());
        let run = Box::new(server).run(context.clone());
        let running = tokio::spawn(async move { run.await.unwrap() });
        Self { dir, context, running }
    }

    /// Runs kubectl with a manifest on its standard input; exit status, output and errors together.
    async fn run(&self, arguments: &str, input: &str) -> (bool, String) {
        let mut child = Command::new(program())
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", self.dir.path().join("config"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl is needed\nhint: aksim doctor --fix installs it");
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = tokio::time::timeout(std::time::Duration::from_secs(60), child.wait_with_output());
        let output = output.await.expect("kubectl ends within a minute").unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    }

    /// Runs kubectl, which must succeed; its output.
    async fn ok(&self, arguments: &str, input: &str) -> String {
        let (success, text) = self.run(arguments, input).await;
        assert!(success, "kubectl {arguments}: {text}");
        text
    }

    /// Runs kubectl, which must fail; its output.
    async fn fails(&self, arguments: &str, input: &str) -> String {
        let (success, text) = self.run(arguments, input).await;
        assert!(!success, "kubectl {arguments} was to fail: {text}");
        text
    }

    async fn stop(self) {
        self.context.shutdown.cancel();
        self.running.await.unwrap();
    }
}

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "shopacr.azurecr.io/web:v1", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_manages_objects() {
    let kubectl = Kubectl::start().await;
    assert!(kubectl.ok("version", "").await.contains("Server Version: v1.36.0-aksim"));
    let resources = kubectl.ok("api-resources --no-headers", "").await;
    for kind in ["Deployment", "ConfigMap", "HorizontalPodAutoscaler", "EndpointSlice", "StorageClass"] {
        assert!(resources.contains(kind), "{kind} in {resources}");
    }
    assert!(kubectl.ok("get ns", "").await.contains("kube-system"));
    assert_eq!(kubectl.ok("create configmap c --from-literal=a=b", "").await, "configmap/c created\n");
    assert_eq!(kubectl.ok("get cm c -o jsonpath={.data.a}", "").await, "b");
    assert_eq!(kubectl.ok("label cm c l=1", "").await, "configmap/c labeled\n");
    assert_eq!(kubectl.ok("annotate cm c n=1", "").await, "configmap/c annotated\n");
    assert_eq!(kubectl.ok("get cm -l l=1 -o name", "").await, "configmap/c\n");
    let patched = kubectl.ok(r#"patch cm c --type=json -p=[{"op":"replace","path":"/data/a","value":"z"}]"#, "").await;
    assert_eq!(patched, "configmap/c patched\n");
    assert_eq!(kubectl.ok(r#"patch cm c -p={"data":{"x":"y"}}"#, "").await, "configmap/c patched\n");
    assert_eq!(kubectl.ok("get cm c -o jsonpath={.data}", "").await, r#"{"a":"z","x":"y"}"#);
    assert!(kubectl.ok("get cm c -o yaml", "").await.contains("x: \"y\""));
    assert!(kubectl.ok("describe cm c", "").await.contains("BinaryData"));
    let missing = kubectl.fails("get cm nope", "").await;
    assert_eq!(missing, "Error from server (NotFound): configmaps \"nope\" not found\n");
    let twice = kubectl.fails("create configmap c", "").await;
    assert_eq!(twice, "error: failed to create configmap: configmaps \"c\" already exists\n");
    assert_eq!(kubectl.ok("delete cm c", "").await, "configmap \"c\" deleted\n");
    assert_eq!(kubectl.ok("auth can-i create pods", "").await, "yes\n");
    assert_eq!(kubectl.fails("auth can-i create pods --as=ada", "").await, "no\n");
    assert!(kubectl.ok("auth whoami", "").await.contains("admin"));
    let refused = kubectl.fails("get pods --as=ada", "").await;
    assert_eq!(
        refused,
        "Error from server (Forbidden): pods is forbidden: User \"ada\" cannot list resource \"pods\" in API group \"\" \
         in the namespace \"default\"\n"
    );
    kubectl.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_and_scales() {
    let kubectl = Kubectl::start().await;
    let applied = kubectl.ok("apply -f -", WEB).await;
    assert_eq!(applied, "deployment.apps/web created\nservice/web created\n");
    let again = kubectl.ok("apply -f -", WEB).await;
    assert_eq!(again, "deployment.apps/web unchanged\nservice/web unchanged\n");
    let changed = kubectl.ok("apply -f -", &WEB.replace("web:v1", "web:v2")).await;
    assert_eq!(changed, "deployment.apps/web configured\nservice/web unchanged\n");
    let table = kubectl.ok("get deploy -o wide", "").await;
    assert!(table.contains("0/2") && table.contains("shopacr.azurecr.io/web:v2"), "{table}");
    assert_eq!(kubectl.ok("scale deploy web --replicas=3", "").await, "deployment.apps/web scaled\n");
    assert_eq!(kubectl.ok("get deploy web -o jsonpath={.spec.replicas}", "").await, "3");
    let set = kubectl.ok("set image deploy/web c=shopacr.azurecr.io/web:v3", "").await;
    assert_eq!(set, "deployment.apps/web image updated\n");
    assert!(kubectl.ok("describe deploy web", "").await.contains("shopacr.azurecr.io/web:v3"));
    let typo = kubectl.fails("apply -f -", &WEB.replace("replicas", "replica")).await;
    assert!(typo.contains(r#"unknown field "spec.replica""#), "{typo}");
    let bad = kubectl.fails("create -f -", &WEB.replace("matchLabels: {app: web}", "matchLabels: {app: other}")).await;
    assert!(bad.contains("`selector` does not match template `labels`"), "{bad}");
    let server_side = kubectl.ok("apply --server-side --force-conflicts -f -", WEB).await;
    assert_eq!(server_side, "deployment.apps/web serverside-applied\nservice/web serverside-applied\n");
    assert_eq!(kubectl.ok("delete -f -", WEB).await, "deployment.apps \"web\" deleted\nservice \"web\" deleted\n");
    kubectl.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_gets_tokens_and_raw_documents() {
    let kubectl = Kubectl::start().await;
    kubectl.ok("create serviceaccount robot", "").await;
    let token = kubectl.ok("create token robot", "").await;
    let claims: Value = {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    };
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
    assert!(kubectl.ok("get --raw /readyz?verbose", "").await.ends_with("readyz check passed\n"));
    let keys: Value = serde_json::from_str(&kubectl.ok("get --raw /openid/v1/jwks", "").await).unwrap();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    kubectl.stop().await;
}
