//! The protocol over HTTP, as clients speak it and as they get it wrong.
#![expect(clippy::disallowed_methods, reason = "a test's tasks and threads end with it")]

use super::{storage::Storage, *};
use aksim_model::endpoint::AzureName;
use aksim_runtime::{net::azure_http_client, recorder::Recorder};
use http::{Method, StatusCode, header};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Client {
    dir: tempfile::TempDir,
    http: reqwest::Client,
    admin: AdminCredentials,
    storage: Arc<Storage>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Client {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Self {
        let pki = Pki::open(&dir.path().join("pki"), "test").unwrap();
        let config = RegistryConfig::new(dir.path().join("registry"), pki.clone(), "shopacr");
        let registry = Registry::bind(config).await.unwrap();
        let name = AzureName { host: "shopacr.azurecr.io".into(), port: 443, target: registry.address() };
        let http = azure_http_client(&pki, &[name]).unwrap();
        let (admin, storage) = (registry.admin_credentials(), registry.storage());
        let context = RunContext::detached(Recorder::in_memory());
        let shutdown = context.shutdown.clone();
        let task = tokio::spawn(async move { Box::new(registry).run(context).await.unwrap() });
        Self { dir, http, admin, storage, shutdown, task }
    }

    async fn restart(self) -> Self {
        self.shutdown.cancel();
        self.task.await.unwrap();
        Self::start_in(self.dir).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url =
            if path.starts_with("https:") { path.to_owned() } else { format!("https://shopacr.azurecr.io{path}") };
        self.http.request(method, url).basic_auth(&self.admin.username, Some(&self.admin.password))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }

    async fn delete(&self, path: &str) -> StatusCode {
        self.request(Method::DELETE, path).send().await.unwrap().status()
    }

    async fn blob(&self, name: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let response = self.request(Method::POST, &path).body(content.to_vec()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()["docker-content-digest"], digest.as_str());
        digest
    }

    async fn put(&self, name: &str, reference: &str, media_type: &str, manifest: &Value) -> Response {
        let request = self.request(Method::PUT, &format!("/v2/{name}/manifests/{reference}"));
        request.header(header::CONTENT_TYPE, media_type).body(manifest.to_string()).send().await.unwrap()
    }

    /// Pushes an image with a layer of its own; the manifest's digest, and the layer's.
    async fn image(&self, name: &str, tag: &str, layer: &str) -> (Digest, Digest) {
        let config = self.blob(name, b"{}").await;
        let layer_digest = self.blob(name, layer.as_bytes()).await;
        let manifest = image_manifest(&config, &layer_digest, layer.len());
        assert_eq!(self.put(name, tag, MANIFEST, &manifest).await.status(), StatusCode::CREATED);
        (Digest::of(manifest.to_string().as_bytes()), layer_digest)
    }

    async fn begin(&self, name: &str) -> String {
        let response = self.request(Method::POST, &format!("/v2/{name}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        location(&response)
    }

    async fn patch(&self, at: &str, range: Option<&str>, body: &'static [u8]) -> Response {
        let mut request = self.request(Method::PATCH, at).body(body);
        if let Some(range) = range {
            request = request.header(header::CONTENT_RANGE, range);
        }
        request.send().await.unwrap()
    }
}

fn location(response: &Response) -> String {
    response.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

fn image_manifest(config: &Digest, layer: &Digest, size: usize) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size}],
    })
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["errors"][0]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn chunks_are_put_together_in_order_and_resumed_after_a_restart() {
    let client = Client::start().await;
    let at = client.begin("web").await;
    let response = client.patch(&at, Some("0-4"), b"hello").await;
    assert_eq!((response.status().as_u16(), &response.headers()[header::RANGE]), (202, &"0-4".parse().unwrap()));
    // Out of order: refused, with the place to go on.
    let wrong = client.patch(&at, Some("7-9"), b"xyz").await;
    assert_eq!((wrong.status().as_u16(), &wrong.headers()[header::RANGE]), (416, &"0-4".parse().unwrap()));
    assert_eq!(location(&wrong), at);
    let client = client.restart().await;
    let status = client.get(&at).await;
    assert_eq!((status.status().as_u16(), &status.headers()[header::RANGE]), (204, &"0-4".parse().unwrap()));
    assert_eq!(client.patch(&at, None, b" wor").await.status(), 202);
    let digest = Digest::of(b"hello world");
    let done =
        client.request(Method::PUT, &format!("{at}?digest={digest}")).header(header::CONTENT_RANGE, "9-10").body("ld");
    let done = done.send().await.unwrap();
    assert_eq!((done.status().as_u16(), location(&done)), (201, format!("/v2/web/blobs/{digest}")));
    assert_eq!(client.get(&format!("/v2/web/blobs/{digest}")).await.text().await.unwrap(), "hello world");
    assert_eq!(code(client.get(&at).await).await, (404, "BLOB_UPLOAD_UNKNOWN".into()));
}

#[tokio::test]
async fn what_does_not_match_its_digest_never_becomes_a_blob() {
    let client = Client::start().await;
    let (at, digest) = (client.begin("web").await, Digest::of(b"right"));
    let put = client.request(Method::PUT, &format!("{at}?digest={digest}")).body("wrong").send().await.unwrap();
    assert_eq!(code(put).await, (400, "DIGEST_INVALID".into()));
    assert_eq!(client.get(&format!("/v2/web/blobs/{digest}")).await.status(), 404);
    let at = client.begin("web").await;
    assert_eq!(client.delete(&at).await, StatusCode::NO_CONTENT);
    assert_eq!(client.get(&at).await.status(), 404);
    // An upload belongs to its repository.
    let at = client.begin("web").await.replace("/web/", "/other/");
    assert_eq!(client.get(&at).await.status(), 404);
}

#[tokio::test]
async fn blobs_are_read_in_part_mounted_and_deleted() {
    let client = Client::start().await;
    let digest = client.blob("web", b"0123456789").await;
    let path = format!("/v2/web/blobs/{digest}");
    let part = client.request(Method::GET, &path).header(header::RANGE, "bytes=2-4").send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), &part.headers()[header::CONTENT_RANGE]),
        (206, &"bytes 2-4/10".parse().unwrap())
    );
    assert_eq!(part.text().await.unwrap(), "234");
    let outside = client.request(Method::GET, &path).header(header::RANGE, "bytes=10-").send().await.unwrap();
    assert_eq!(
        (outside.status().as_u16(), &outside.headers()[header::CONTENT_RANGE]),
        (416, &"bytes */10".parse().unwrap())
    );
    let head = client.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()[header::CONTENT_LENGTH]), (200, &"10".parse().unwrap()));

    let other = format!("/v2/team/api/blobs/{digest}");
    assert_eq!(client.get(&other).await.status(), 404);
    let mount = format!("/v2/team/api/blobs/uploads/?mount={digest}&from=web");
    assert_eq!(client.request(Method::POST, &mount).send().await.unwrap().status(), 201);
    assert_eq!(client.delete(&path).await, StatusCode::ACCEPTED);
    assert_eq!(client.get(&path).await.status(), 404);
    assert_eq!(client.get(&other).await.text().await.unwrap(), "0123456789");
    let absent = format!("/v2/web/blobs/uploads/?mount={}&from=team/api", Digest::of(b"absent"));
    assert_eq!(client.request(Method::POST, &absent).send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn manifests_keep_their_type_and_need_their_blobs() {
    let client = Client::start().await;
    let (digest, _) = client.image("web", "v1", "layer").await;
    for reference in ["v1", digest.as_str()] {
        let got = client.get(&format!("/v2/web/manifests/{reference}")).await;
        assert_eq!(
            (&got.headers()[header::CONTENT_TYPE], &got.headers()["docker-content-digest"]),
            (&MANIFEST.parse().unwrap(), &digest.as_str().parse().unwrap())
        );
    }
    let lacking = image_manifest(&Digest::of(b"{}"), &Digest::of(b"nowhere"), 7);
    assert_eq!(code(client.put("web", "v2", MANIFEST, &lacking).await).await, (400, "MANIFEST_BLOB_UNKNOWN".into()));
    assert_eq!(code(client.put("web", "v2", INDEX, &lacking).await).await, (400, "MANIFEST_INVALID".into()));
    assert_eq!(code(client.put("web", "v2", MANIFEST, &json!({"schemaVersion": 1})).await).await.1, "MANIFEST_INVALID");
    assert_eq!(code(client.put("web", ".bad", MANIFEST, &lacking).await).await.1, "TAG_INVALID");
    let wrong = Digest::of(b"x").to_string();
    let image = image_manifest(&Digest::of(b"{}"), &Digest::of(b"layer"), 5);
    assert_eq!(code(client.put("web", &wrong, MANIFEST, &image).await).await.1, "DIGEST_INVALID");
    let large = json!({"schemaVersion": 2, "annotations": {"a": "x".repeat(5 << 20)}});
    assert_eq!(client.put("web", "v2", MANIFEST, &large).await.status(), 413);
    assert_eq!(code(client.get("/v2/web/manifests/v2").await).await, (404, "MANIFEST_UNKNOWN".into()));
    assert_eq!(code(client.get("/v2/UPPER/manifests/v2").await).await.1, "NAME_INVALID");
}

#[tokio::test]
async fn tags_and_repositories_come_in_pages() {
    let client = Client::start().await;
    let (digest, _) = client.image("b/web", "v1", "one").await;
    for tag in ["v2", "v3"] {
        client.image("b/web", tag, "one").await;
    }
    client.image("a", "v1", "one").await;
    let page = client.get("/v2/b/web/tags/list?n=2").await;
    let link = page.headers()[header::LINK].to_str().unwrap().to_owned();
    assert_eq!(link, "</v2/b/web/tags/list?last=v2&n=2>; rel=\"next\"");
    assert_eq!(page.json::<Value>().await.unwrap(), json!({"name": "b/web", "tags": ["v1", "v2"]}));
    let rest = client.json("/v2/b/web/tags/list?last=v2&n=2").await;
    assert_eq!(rest["tags"], json!(["v3"]));
    assert_eq!(client.json("/v2/_catalog").await, json!({"repositories": ["a", "b/web"]}));
    assert_eq!(code(client.get("/v2/none/tags/list").await).await, (404, "NAME_UNKNOWN".into()));

    assert_eq!(client.delete("/v2/b/web/manifests/v3").await, StatusCode::ACCEPTED);
    assert_eq!(client.json("/acr/v1/b/web").await["tagCount"], 2);
    assert_eq!(client.json("/acr/v1/b/web/_tags").await["tags"][0]["name"], "v1");
    assert_eq!(client.json("/acr/v1/b/web/_manifests").await["manifests"][0]["tags"], json!(["v1", "v2"]));
    assert_eq!(client.delete(&format!("/v2/b/web/manifests/{digest}")).await, StatusCode::ACCEPTED);
    assert_eq!(client.get("/v2/b/web/tags/list").await.status(), 404);
    assert_eq!(client.delete("/acr/v1/a").await, StatusCode::ACCEPTED);
    assert_eq!(client.json("/acr/v1/_catalog").await, json!({"repositories": []}));
}

#[tokio::test]
async fn referrers_are_listed_by_subject_and_type() {
    let client = Client::start().await;
    let (subject, _) = client.image("web", "v1", "layer").await;
    let empty = client.blob("web", b"{}").await;
    let refer = |kind: &str| {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [], "annotations": {"kind": kind},
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
        })
    };
    for kind in ["application/sbom", "application/signature"] {
        let manifest = refer(kind);
        let put = client.put("web", Digest::of(manifest.to_string().as_bytes()).as_str(), MANIFEST, &manifest).await;
        assert_eq!(put.headers()["oci-subject"], subject.as_str());
    }
    let path = format!("/v2/web/referrers/{subject}");
    assert_eq!(client.json(&path).await["manifests"].as_array().unwrap().len(), 2);
    let some = client.get(&format!("{path}?artifactType=application/sbom")).await;
    assert_eq!(some.headers()["oci-filters-applied"], "artifactType");
    let some: Value = some.json().await.unwrap();
    assert_eq!(some["manifests"][0]["annotations"]["kind"], "application/sbom");
    assert_eq!(some["manifests"].as_array().unwrap().len(), 1);
    let none = client.json(&format!("/v2/web/referrers/{}", Digest::of(b"x"))).await;
    assert_eq!((none["manifests"].clone(), none["mediaType"].clone()), (json!([]), json!(INDEX)));
    // What an older client left under the fallback tag is listed too.
    let old = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": subject, "size": 1, "artifactType": "application/old"}]});
    let tag = subject.as_str().replace(':', "-");
    assert_eq!(client.put("web", &tag, INDEX, &old).await.status(), 201);
    assert_eq!(client.json(&path).await["manifests"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn garbage_goes_and_what_is_needed_or_young_stays() {
    let client = Client::start().await;
    let (digest, layer) = client.image("web", "v1", "kept").await;
    let (gone, gone_layer) = client.image("web", "v2", "gone").await;
    client.delete(&format!("/v2/web/manifests/{gone}")).await;
    assert_eq!(client.storage.collect_garbage(Duration::from_secs(3600)).unwrap(), Collected::default());
    let collected = client.storage.collect_garbage(Duration::ZERO).unwrap();
    // The manifest and its own layer; the config is the other image's too.
    assert_eq!(collected.blobs, 2);
    assert_eq!(client.get(&format!("/v2/web/blobs/{gone_layer}")).await.status(), 404);
    assert_eq!(client.get(&format!("/v2/web/blobs/{layer}")).await.status(), 200);
    assert_eq!(client.get(&format!("/v2/web/manifests/{digest}")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_beside_pushes_takes_nothing_that_they_need() {
    let client = Arc::new(Client::start().await);
    let mut pushes = tokio::task::JoinSet::new();
    for pusher in 0..4 {
        let client = client.clone();
        pushes.spawn(async move {
            for round in 0..10 {
                let layer = format!("layer {pusher} {round}");
                let (digest, layer) = client.image(&format!("r{pusher}"), &format!("v{round}"), &layer).await;
                assert_eq!(client.get(&format!("/v2/r{pusher}/manifests/{digest}")).await.status(), 200);
                assert_eq!(client.get(&format!("/v2/r{pusher}/blobs/{layer}")).await.status(), 200);
            }
        });
    }
    let storage = client.storage.clone();
    while !pushes.is_empty() {
        let storage = storage.clone();
        // A grace that the pushes stay within.
        tokio::task::spawn_blocking(move || storage.collect_garbage(Duration::from_secs(60))).await.unwrap().unwrap();
        while let Some(done) = pushes.try_join_next() {
            done.unwrap();
        }
        tokio::task::yield_now().await;
    }
    for pusher in 0..4 {
        let tags = client.json(&format!("/v2/r{pusher}/tags/list")).await;
        assert_eq!(tags["tags"].as_array().unwrap().len(), 10);
    }
}

#[tokio::test]
async fn tokens_are_for_what_they_say_and_anonymous_gets_none() {
    let client = Client::start().await;
    let http = &client.http;
    let refused = http.get("https://shopacr.azurecr.io/v2/web/tags/list").send().await.unwrap();
    let challenge = refused.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().to_owned();
    let want = "Bearer realm=\"https://shopacr.azurecr.io/oauth2/token\",service=\"shopacr.azurecr.io\",scope=\"repository:web:pull\"";
    assert_eq!(challenge, want);
    assert_eq!(code(refused).await, (401, "UNAUTHORIZED".into()));
    let token = "https://shopacr.azurecr.io/oauth2/token?service=shopacr.azurecr.io&scope=repository:web:pull";
    assert_eq!(http.get(token).send().await.unwrap().status(), 401);
    let wrong = http.get(token).basic_auth("shopacr", Some("no")).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    client.image("web", "v1", "x").await;
    let answer: Value = client.get(&format!("{token}&offline_token=true")).await.json().await.unwrap();
    let bearer = answer["access_token"].as_str().unwrap().to_owned();
    let with = |path: &str, method: Method| {
        http.request(method, format!("https://shopacr.azurecr.io{path}")).bearer_auth(&bearer).send()
    };
    assert_eq!(with("/v2/", Method::GET).await.unwrap().status(), 200);
    assert_eq!(with("/v2/web/tags/list", Method::GET).await.unwrap().status(), 200);
    assert_eq!(with("/v2/other/tags/list", Method::GET).await.unwrap().status(), 401);
    let push = with("/v2/web/blobs/uploads/", Method::POST).await.unwrap();
    assert!(push.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().contains("insufficient_scope"));
    // docker login's way: the refresh token gets access tokens, by POST and as a password.
    let refresh = answer["refresh_token"].as_str().unwrap();
    let form = [
        ("grant_type", "refresh_token"),
        ("service", "shopacr.azurecr.io"),
        ("scope", "registry:catalog:*"),
        ("refresh_token", refresh),
    ];
    let post: Value =
        http.post("https://shopacr.azurecr.io/oauth2/token").form(&form).send().await.unwrap().json().await.unwrap();
    let catalog =
        http.get("https://shopacr.azurecr.io/v2/_catalog").bearer_auth(post["access_token"].as_str().unwrap());
    assert_eq!(catalog.send().await.unwrap().status(), 200);
    let zero = http.get(token).basic_auth("00000000-0000-0000-0000-000000000000", Some(refresh)).send().await.unwrap();
    assert_eq!(zero.status(), 200);
    let forged = format!("{}x", &bearer[..bearer.len() - 1]);
    let forged = http.get("https://shopacr.azurecr.io/v2/").bearer_auth(forged).send().await.unwrap();
    assert_eq!(forged.status(), 401);
}
