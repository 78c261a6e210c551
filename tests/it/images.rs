//! Build, push, pull: the builder and the registry meet over the registry's protocol.

use super::registry::{Running, good};
use aksim::{
    images::{BuildEvent, BuildRequest, Credentials, ImageBuilder, ImageBuilderConfig, Platform},
    model::{endpoint::AzureName, image_ref::ImageRef},
    runtime::net::azure_http_client,
};
use std::{path::Path, sync::Arc};

fn builder(registry: &Running, cache: &Path) -> ImageBuilder {
    let name = AzureName { host: "shopacr.azurecr.io".into(), port: 443, target: registry.address };
    ImageBuilder::new(ImageBuilderConfig {
        cache_dir: cache.to_owned(),
        exe: env!("CARGO_BIN_EXE_aksim").into(),
        http: azure_http_client(&registry.pki, &[name]).unwrap(),
        credentials: Credentials::default().with(
            "shopacr.azurecr.io",
            &registry.admin.username,
            &registry.admin.password,
        ),
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_built_pushed_seen_by_skopeo_pulled_and_built_upon() {
    let registry = Running::start().await;
    let context = registry.dir.path().join("app");
    std::fs::create_dir_all(context.join("bin")).unwrap();
    std::fs::write(context.join("bin/web"), vec![7; 1 << 20]).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY bin/web /web\nENTRYPOINT [\"/web\"]\n").unwrap();
    let image: ImageRef = "shopacr.azurecr.io/team/web:v1".parse().unwrap();

    let first = builder(&registry, &registry.dir.path().join("cache-1"));
    let built = first.build(BuildRequest::new(&context, image.clone()), |_| {}).await.unwrap();
    assert_eq!(first.push(&built, &image).await.unwrap(), built.digest);
    // Again: nothing is uploaded, and the digest is the same.
    let again = first.build(BuildRequest::new(&context, image.clone()), |_| {}).await.unwrap();
    assert_eq!((again.digest.clone(), again.cached_steps), (built.digest.clone(), 1));
    assert_eq!(first.push(&again, &image.with_tag("v2")).await.unwrap(), built.digest);

    let (credentials, certificates) = (registry.credentials(), registry.certificates());
    let name = format!("docker://{}/team/web:v2", registry.host);
    let inspect = ["inspect", "--creds", &credentials, "--cert-dir", &certificates, &name];
    let seen: serde_json::Value = serde_json::from_str(&good(registry.skopeo(&inspect).await)).unwrap();
    assert_eq!(seen["Digest"], serde_json::json!(built.digest));

    // Another machine pulls it, and builds on it.
    let second = builder(&registry, &registry.dir.path().join("cache-2"));
    let pulled = second.pull(&image, &Platform::host()).await.unwrap();
    assert_eq!(pulled.digest, built.digest);
    std::fs::write(context.join("Dockerfile"), format!("FROM {image}\nCOPY --from={image} /web /copy\nCMD [\"-v\"]\n"))
        .unwrap();
    let other: ImageRef = "shopacr.azurecr.io/other:v1".parse().unwrap();
    let upon = second.build(BuildRequest::new(&context, other.clone()), |_| {}).await.unwrap();
    assert_eq!(upon.layers[0], built.layers[0]);
    second.push(&upon, &other).await.unwrap();
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said() {
    let registry = Running::start().await;
    let context = registry.dir.path().join("app");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let image: ImageRef = "shopacr.azurecr.io/web:v1".parse().unwrap();
    let name = AzureName { host: "shopacr.azurecr.io".into(), port: 443, target: registry.address };
    let builder = ImageBuilder::new(ImageBuilderConfig {
        cache_dir: registry.dir.path().join("cache"),
        exe: env!("CARGO_BIN_EXE_aksim").into(),
        http: azure_http_client(&registry.pki, &[name]).unwrap(),
        credentials: Credentials::default().with("shopacr.azurecr.io", "shopacr", "wrong"),
    })
    .unwrap();
    let events = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = events.clone();
    let built = builder.build(BuildRequest::new(&context, image.clone()), move |e| seen.lock().unwrap().push(e)).await;
    let error = builder.push(&built.unwrap(), &image).await.unwrap_err();
    assert!(error.to_string().contains("invalid username or password"), "{error}");
    let steps = events.lock().unwrap().iter().filter(|e| matches!(e, BuildEvent::StepDone { .. })).count();
    assert_eq!(steps, 2);
    registry.stop().await;
}
