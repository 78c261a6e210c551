//! Pulling from a registry over TLS with token authentication, by an Azure name.

use super::support::{IMAGE, Node, busybox_config, busybox_layers, layout};
use aksim::{
    model::endpoint::AzureName,
    node::{
        container::ContainerRuntime,
        runtime::{NodeRuntime, RegistryCredentials, RuntimeError},
    },
    runtime::pki::Pki,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

struct Registry {
    blobs: PathBuf,
    manifest: String,
    blob_requests: AtomicUsize,
}

async fn serve(State(registry): State<Arc<Registry>>, Path(rest): Path<String>, headers: HeaderMap) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|h| h != "Bearer let-me-in") {
        let challenge = r#"Bearer realm="https://shopacr.azurecr.io/oauth2/token",service="shopacr.azurecr.io",scope="repository:busybox:pull""#;
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let digest = match rest.rsplit_once('/') {
        Some(("busybox/manifests", "1")) => registry.manifest.clone(),
        Some(("busybox/blobs" | "busybox/manifests", digest)) => digest.to_owned(),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    if rest.contains("blobs") {
        registry.blob_requests.fetch_add(1, Ordering::Relaxed);
    }
    match std::fs::read(registry.blobs.join(digest.trim_start_matches("sha256:"))) {
        Ok(bytes) => bytes.into_response(),
        Err(_) => (
            StatusCode::NOT_FOUND,
            Json(serde_json::json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown tag"}]})),
        )
            .into_response(),
    }
}

async fn token(headers: HeaderMap) -> Response {
    use base64::Engine;
    let good = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("shopacr:secret"));
    if headers.get(header::AUTHORIZATION).is_some_and(|h| *h == *good) {
        Json(serde_json::json!({ "access_token": "let-me-in" })).into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

#[tokio::test]
async fn pulls_by_an_azure_name_with_credentials_once() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("layout");
    layout(&image, IMAGE, &busybox_layers(), busybox_config());
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(image.join("index.json")).unwrap()).unwrap();
    let registry = Arc::new(Registry {
        blobs: image.join("blobs/sha256"),
        manifest: index["manifests"][0]["digest"].as_str().unwrap().to_owned(),
        blob_requests: AtomicUsize::new(0),
    });
    let pki = Pki::open(&folder.path().join("pki"), "test CA").unwrap();
    let listener = aksim::runtime::net::listen_loopback(0).await.unwrap();
    let target = listener.local_addr().unwrap();
    let router =
        Router::new().route("/v2/{*rest}", get(serve)).route("/oauth2/token", get(token)).with_state(registry.clone());
    let tls = pki.server_config(&["shopacr.azurecr.io"], false).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(aksim::runtime::http::serve(listener, Some(tls), router, tokio_util::sync::CancellationToken::new()));

    let mut config = Node::config(folder.path());
    config.azure_names = vec![AzureName { host: "shopacr.azurecr.io".into(), port: 443, target }];
    config.ca_pem = Some(pki.ca_pem().to_owned());
    let runtime = ContainerRuntime::open(config).await.unwrap();
    let reference = IMAGE.parse().unwrap();
    let anonymous = runtime.pull_image(&reference, &RegistryCredentials::Anonymous).await.unwrap_err();
    assert!(matches!(&anonymous, RuntimeError::Pull { message, .. } if message.contains("authorize")), "{anonymous}");

    runtime.set_credentials(
        "shopacr.azurecr.io",
        RegistryCredentials::Basic { username: "shopacr".into(), password: "secret".into() },
    );
    let pulled = runtime.pull_image(&reference, &RegistryCredentials::Anonymous).await.unwrap();
    assert_eq!(pulled.repo_tags, [IMAGE]);
    assert_eq!(pulled.repo_digests, [format!("shopacr.azurecr.io/busybox@{}", registry.manifest)]);
    assert!(pulled.size > 1_000_000, "{}", pulled.size);
    assert_eq!(runtime.image(&reference).await.unwrap().as_ref(), Some(&pulled));
    let requests = registry.blob_requests.load(Ordering::Relaxed);
    assert_eq!(requests, 3, "configuration and two layers");
    assert_eq!(runtime.pull_image(&reference, &RegistryCredentials::Anonymous).await.unwrap(), pulled);
    assert_eq!(registry.blob_requests.load(Ordering::Relaxed), requests, "unchanged: nothing is fetched again");

    let missing = "shopacr.azurecr.io/busybox:2".parse().unwrap();
    let missing = runtime.pull_image(&missing, &RegistryCredentials::Anonymous).await.unwrap_err();
    assert!(missing.to_string().contains("not found"), "{missing}");
    runtime.teardown().await.unwrap();
}
