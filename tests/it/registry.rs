//! The registry with clients that others wrote: skopeo, and the Python package oras.

use aksim::{
    identity::{ApplicationSpec, DirectorySpec, IdentityConfig, Issuer, ObjectIds},
    model::endpoint::AzureName,
    registry::{AcrRole, AdminCredentials, EntraConfig, Registry, RegistryConfig, RoleAssignment},
    runtime::{
        component::{Component, RunContext},
        net::azure_http_client,
        pki::Pki,
        recorder::Recorder,
    },
};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    process::Output,
};
use tokio::{process::Command, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A running registry in a folder of its own.
pub struct Running {
    pub dir: tempfile::TempDir,
    pub host: String,
    pub address: std::net::SocketAddr,
    pub pki: Pki,
    pub admin: AdminCredentials,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    recorder: Recorder,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Self {
        let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
        let certificates = dir.path().join("certs");
        std::fs::create_dir_all(&certificates).unwrap();
        std::fs::write(certificates.join("ca.crt"), pki.ca_pem()).unwrap();
        let config = RegistryConfig::new(dir.path().join("registry"), pki.clone(), "shopacr");
        let registry = Registry::bind(config).await.unwrap();
        let address = registry.address();
        let host = address.to_string();
        let admin = registry.admin_credentials();
        let recorder = Recorder::in_memory();
        let context = RunContext::detached(recorder.clone());
        let shutdown = context.shutdown.clone();
        let task = tokio::spawn(async move { Box::new(registry).run(context).await.unwrap() });
        Self { dir, host, address, pki, admin, shutdown, task, recorder }
    }

    pub async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        self.task.await.unwrap();
        self.dir
    }

    pub async fn skopeo(&self, arguments: &[&str]) -> Output {
        client("skopeo", arguments, |c| c.env("HOME", self.dir.path())).await
    }

    pub fn credentials(&self) -> String {
        format!("{}:{}", self.admin.username, self.admin.password)
    }

    pub fn certificates(&self) -> String {
        self.dir.path().join("certs").display().to_string()
    }
}

async fn client(program: &str, arguments: &[&str], set: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    set(&mut command);
    let run = tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await;
    run.expect("the client ends within a minute")
        .unwrap_or_else(|e| panic!("{program}: {e}\nhint: aksim doctor --fix installs the test clients"))
}

pub fn good(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn put_blob(layout: &Path, content: &[u8]) -> (String, usize) {
    let hex = hex::encode(Sha256::digest(content));
    std::fs::write(layout.join("blobs/sha256").join(&hex), content).unwrap();
    (format!("sha256:{hex}"), content.len())
}

/// An OCI layout with one image of a layer of `layer_bytes` bytes that do not compress.
fn layout(dir: &Path, layer_bytes: usize) -> PathBuf {
    let layout = dir.join("layout");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let mut content = Vec::with_capacity(layer_bytes);
    let mut block = Sha256::digest(b"seed");
    while content.len() < layer_bytes {
        content.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "data", content.as_slice()).unwrap();
    let tar = tar.into_inner().unwrap();
    let (layer, layer_size) = put_blob(&layout, &tar);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let (config, config_size) = put_blob(&layout, config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size }],
    });
    let (manifest, manifest_size) = put_blob(&layout, manifest.to_string().as_bytes());
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": manifest_size,
            "annotations": { "org.opencontainers.image.ref.name": "v1" },
        }],
    });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_pushes_lists_inspects_copies_pulls_and_deletes() {
    let registry = Running::start().await;
    let source = format!("oci:{}:v1", layout(registry.dir.path(), 3 << 20).display());
    let (credentials, certificates) = (registry.credentials(), registry.certificates());
    let image = |name: &str| format!("docker://{}/{name}", registry.host);

    let to = ["--dest-creds", &credentials, "--dest-cert-dir", &certificates];
    let from = ["--src-creds", &credentials, "--src-cert-dir", &certificates];
    let at = ["--creds", &credentials, "--cert-dir", &certificates];
    let run = async |verb: &str, options: &[&str], rest: &[&str]| {
        good(registry.skopeo(&[&[verb], options, rest].concat()).await)
    };
    run("copy", &to, &[&source, &image("team/web:v1")]).await;
    // Within the registry: blobs are mounted, the manifest is the same.
    run("copy", &[to, from].concat(), &[&image("team/web:v1"), &image("other/web:v2")]).await;
    let tags = run("list-tags", &at, &[&image("other/web")]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&tags).unwrap()["Tags"], serde_json::json!(["v2"]));
    let inspect = async |name: &str| {
        let json = run("inspect", &at, &[&image(name)]).await;
        serde_json::from_str::<serde_json::Value>(&json).unwrap()
    };
    let digest = inspect("team/web:v1").await["Digest"].clone();
    assert_eq!(inspect("other/web:v2").await["Digest"], digest);

    let pulled = registry.dir.path().join("pulled");
    run("copy", &from, &[&image("team/web:v1"), &format!("dir:{}", pulled.display())]).await;
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(pulled.join("manifest.json")).unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    assert_eq!(hex::encode(Sha256::digest(std::fs::read(pulled.join(layer)).unwrap())), layer);

    run("delete", &at, &[&image("other/web:v2")]).await;
    assert!(
        !registry.skopeo(&[&["inspect"], at.as_slice(), &[&image("other/web:v2")]].concat()).await.status.success()
    );
    let flow = registry.recorder.world().flow.values().map(|f| f.message.clone()).collect::<Vec<_>>();
    assert!(flow.iter().any(|m| m.contains("shopacr.azurecr.io/other/web:v2")), "{flow:?}");
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_is_refused_without_the_right_password() {
    let registry = Running::start().await;
    let source = format!("oci:{}:v1", layout(registry.dir.path(), 1000).display());
    let certificates = registry.certificates();
    let image = format!("docker://{}/web:v1", registry.host);
    for credentials in [&["--dest-no-creds"][..], &["--dest-creds", "shopacr:wrong"], &["--dest-creds", "ada:x"]] {
        let arguments = [&["copy", "--dest-cert-dir", &certificates], credentials, &[&source, &image]].concat();
        let output = registry.skopeo(&arguments).await;
        assert!(!output.status.success(), "{credentials:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("authentication required") || error.contains("unauthorized"), "{error}");
    }
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_survives_a_restart() {
    let registry = Running::start().await;
    let source = format!("oci:{}:v1", layout(registry.dir.path(), 100_000).display());
    let image = |host: &str| format!("docker://{host}/web:v1");
    let (credentials, certificates) = (registry.credentials(), registry.certificates());
    let options = ["--dest-creds", &credentials, "--dest-cert-dir", &certificates];
    good(registry.skopeo(&[&["copy"], options.as_slice(), &[&source, &image(&registry.host)]].concat()).await);
    let registry = Running::start_in(registry.stop().await).await;
    assert_eq!(registry.credentials(), credentials);
    let options = ["--creds", &credentials, "--cert-dir", &certificates];
    good(registry.skopeo(&[&["inspect"], options.as_slice(), &[&image(&registry.host)]].concat()).await);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oras_pushes_pulls_and_lists_an_artifact() {
    let registry = Running::start().await;
    let script = r#"
import os, sys
import oras.client, oras.provider
host, user, password, ca, folder = sys.argv[1:6]
os.chdir(folder)
open("artifact.txt", "w").write("hello from oras\n")
client = oras.client.OrasClient(hostname=host, tls_verify=True, auth_backend="token")
client.session.verify = ca
client.auth.set_basic_auth(user, password)
target = host + "/labs/artifact:v1"
client.push(target=target, files=["artifact.txt"])
os.makedirs("out", exist_ok=True)
files = client.pull(target=target, outdir="out")
assert open(files[0]).read() == "hello from oras\n", files
assert client.get_tags(host + "/labs/artifact") == ["v1"]
# The token backend keeps its first token, which is good for less; ACR takes Basic as well.
remover = oras.client.OrasClient(hostname=host, tls_verify=True, auth_backend="basic")
remover.session.verify = ca
remover.auth.set_basic_auth(user, password)
remover.delete_tags(host + "/labs/artifact", ["v1"])
print("ok")
"#;
    let ca = registry.dir.path().join("certs/ca.crt").display().to_string();
    let folder = registry.dir.path().join("oras");
    std::fs::create_dir_all(&folder).unwrap();
    let folder = folder.display().to_string();
    let (user, password) = (&registry.admin.username, &registry.admin.password);
    let arguments = ["-c", script, &registry.host, user, password, &ca, &folder];
    let output =
        client(&crate::support::python().display().to_string(), &arguments, |c| c.env("REQUESTS_CA_BUNDLE", &ca)).await;
    assert!(good(output).contains("ok"));
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_principals_and_entra_tokens_get_what_their_roles_allow() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
    let application = |name: &str| ApplicationSpec {
        name: name.into(),
        secrets: vec![format!("{name}~secret")],
        ..ApplicationSpec::default()
    };
    let directory = DirectorySpec {
        tenant: "contoso".into(),
        applications: ["puller", "pusher", "nobody"].map(application).to_vec(),
        ..DirectorySpec::default()
    };
    let issuer = Issuer::bind(IdentityConfig::new(dir.path().join("identity"), pki.clone(), directory)).await.unwrap();
    let ids = ObjectIds::of_tenant("contoso");
    let client_id = |name: &str| ids.application(name).to_string();
    let mut config = RegistryConfig::new(dir.path().join("registry"), pki.clone(), "shopacr");
    let http = azure_http_client(&pki, &issuer.azure_names()).unwrap();
    let assignments = vec![
        // By client id, and by the object id of the service principal.
        RoleAssignment { principal: client_id("puller"), role: AcrRole::AcrPull },
        RoleAssignment {
            principal: ids.service_principal(ids.application("pusher")).to_string(),
            role: AcrRole::AcrPush,
        },
    ];
    config.entra = Some(EntraConfig::new(&ids.tenant().to_string(), http, assignments));
    let registry = Registry::bind(config).await.unwrap();
    let mut names = issuer.azure_names();
    names.push(AzureName { host: "shopacr.azurecr.io".into(), port: 443, target: registry.address() });
    let http = azure_http_client(&pki, &names).unwrap();
    let context = RunContext::detached(Recorder::in_memory());
    let shutdown = context.shutdown.clone();
    let mut tasks = tokio::task::JoinSet::new();
    let other = context.clone();
    tasks.spawn(async move { Box::new(issuer).run(other).await.unwrap() });
    tasks.spawn(async move { Box::new(registry).run(context).await.unwrap() });

    let base = "https://shopacr.azurecr.io";
    let status = async |user: &str, secret: &str, push: bool| {
        let url = format!("{base}/v2/web/blobs/{}", if push { "uploads/" } else { "uploads" });
        let request = if push { http.post(url) } else { http.get(format!("{base}/v2/web/tags/list")) };
        request.basic_auth(user, Some(secret)).send().await.unwrap().status().as_u16()
    };
    // 404: allowed, and nothing is there.
    assert_eq!(status(&client_id("puller"), "puller~secret", false).await, 404);
    assert_eq!(status(&client_id("puller"), "puller~secret", true).await, 403);
    assert_eq!(status(&client_id("pusher"), "pusher~secret", true).await, 202);
    assert_eq!(status(&client_id("pusher"), "wrong", true).await, 401);
    assert_eq!(status(&client_id("nobody"), "nobody~secret", false).await, 403);

    // az acr login: an Entra token becomes a refresh token, that an access token.
    let form = |name: &str| {
        [
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", client_id(name)),
            ("client_secret", format!("{name}~secret")),
            ("scope", "https://management.azure.com/.default".to_owned()),
        ]
    };
    let entra = format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", ids.tenant());
    let token = async |name: &str| {
        let answer = http.post(&entra).form(&form(name)).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned()
    };
    let exchange = async |token: &str| {
        let form = [
            ("grant_type", "access_token"),
            ("service", "shopacr.azurecr.io"),
            ("tenant", &ids.tenant().to_string()),
            ("access_token", token),
        ];
        let answer = http.post(format!("{base}/oauth2/exchange")).form(&form).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let (code, answer) = exchange(&token("pusher").await).await;
    assert_eq!(code, 200, "{answer}");
    let form = [
        ("grant_type", "refresh_token"),
        ("service", "shopacr.azurecr.io"),
        ("scope", "repository:web:pull,push"),
        ("refresh_token", answer["refresh_token"].as_str().unwrap()),
    ];
    let answer = http.post(format!("{base}/oauth2/token")).form(&form).send().await.unwrap();
    let access = answer.json::<serde_json::Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned();
    let push = http.post(format!("{base}/v2/web/blobs/uploads/")).bearer_auth(access).send().await.unwrap();
    assert_eq!(push.status(), 202);
    assert_eq!(exchange("not.a.token").await.0, 401);
    assert_eq!(exchange(&token("nobody").await).await.0, 403);
    shutdown.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}
