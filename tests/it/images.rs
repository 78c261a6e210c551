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

/// A context whose first stage is a file system with busybox.
fn busybox_context(registry: &Running) -> std::path::PathBuf {
    let context = registry.dir.path().join("busybox");
    std::fs::create_dir_all(&context).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).is_file());
    let busybox = busybox.expect("busybox (package busybox-static)\nhint: aksim doctor --fix installs what tests need");
    std::fs::copy(busybox, context.join("busybox")).unwrap();
    context
}

const BUSYBOX: &str = "FROM scratch AS base\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_in_containers_and_what_they_change_is_a_layer() {
    let registry = Running::start().await;
    let context = busybox_context(&registry);
    let dockerfile = format!(
        r#"{BUSYBOX}
RUN ["/bin/busybox", "mkdir", "-p", "/etc", "/data"]
RUN <<EOF
set -e
/bin/busybox echo "ada:x:1000:1000:Ada:/home/ada:/bin/sh" > /etc/passwd
/bin/busybox echo one > /data/one
/bin/busybox echo two > /data/two
EOF
ARG WHO=world
ENV GREETING=hello
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/scratch \
    --mount=type=bind,source=input.txt,target=/input \
    /bin/busybox rm /data/one && echo "$GREETING $WHO $(/bin/busybox cat /input)" > /data/two && echo x >> /cache/n \
    && echo to-stdout && echo to-stderr >&2
USER ada
WORKDIR /home/ada
USER 0
RUN /bin/busybox chown ada /home/ada
USER ada
RUN /bin/busybox id -u > who && /bin/busybox pwd >> who
FROM scratch
COPY --from=base /data /data
COPY --from=base /home/ada/who /who
"#
    );
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(context.join("input.txt"), "input").unwrap();
    let builder = builder(&registry, &registry.dir.path().join("cache"));
    let image: ImageRef = "shopacr.azurecr.io/run:v1".parse().unwrap();
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = lines.clone();
    let progress = move |event| {
        if let BuildEvent::Output { line, .. } = event {
            seen.lock().unwrap().push(line);
        }
    };
    let built = builder.build(BuildRequest::new(&context, image.clone()), progress).await;
    let said = lines.lock().unwrap().clone();
    let built = built.unwrap_or_else(|e| panic!("{e}: {said:?}"));
    assert!(said.contains(&"to-stdout".to_owned()) && said.contains(&"to-stderr".to_owned()), "{said:?}");
    let mut files = std::collections::BTreeMap::new();
    for layer in &built.layers {
        let blob = std::fs::File::open(builder.store().blob_path(&layer.digest).unwrap()).unwrap();
        for entry in tar::Archive::new(blob).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), text);
        }
    }
    assert_eq!(files["data/two"], "hello world input\n");
    assert_eq!(files["who"], "1000\n/home/ada\n");
    assert!(!files.contains_key("data/one"));
    // Everything is known now, and nothing is run.
    let again = builder.build(BuildRequest::new(&context, image), |e| assert!(!matches!(e, BuildEvent::Output { .. })));
    assert_eq!(again.await.unwrap().digest, built.digest);
    assert_eq!(std::fs::read_dir(registry.dir.path().join("cache/work")).unwrap().count(), 0);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_command_is_said_with_its_last_lines_and_a_long_one_can_be_stopped() {
    let registry = Running::start().await;
    let context = busybox_context(&registry);
    let builder = builder(&registry, &registry.dir.path().join("cache"));
    let image: ImageRef = "shopacr.azurecr.io/run:v1".parse().unwrap();
    std::fs::write(context.join("Dockerfile"), format!("{BUSYBOX}RUN echo first; echo cause >&2; exit 42\n")).unwrap();
    match builder.build(BuildRequest::new(&context, image.clone()), |_| {}).await.unwrap_err() {
        aksim::images::BuildError::Command { code, output, .. } => {
            assert_eq!(code, 42, "{output:?}");
            assert!(output.contains(&"cause".to_owned()), "{output:?}");
        }
        other => panic!("{other}"),
    }
    std::fs::write(context.join("Dockerfile"), format!("{BUSYBOX}RUN echo begun; /bin/busybox sleep 1000\n")).unwrap();
    let request = BuildRequest::new(&context, image);
    let cancel = request.cancel.clone();
    let stopped = builder.build(request, move |event| {
        if matches!(event, BuildEvent::Output { .. }) {
            cancel.cancel();
        }
    });
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(60), stopped).await.unwrap();
    assert!(matches!(outcome, Err(aksim::images::BuildError::Cancelled)), "{outcome:?}");
    registry.stop().await;
}
