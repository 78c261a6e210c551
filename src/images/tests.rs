//! Builds without a registry: layers, plans, caching, errors.

use super::{
    dockerfile::{Source, parse},
    layer::EntryKind,
    manifest::{ImageConfig, Manifest},
    plan::Plan,
    tree::Tree,
    *,
};
use aksim_model::image_ref::ImageRef;
use aksim_runtime::pki::install_crypto_provider;
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
};

struct Bench {
    dir: tempfile::TempDir,
    builder: ImageBuilder,
}

fn builder(cache: &Path) -> ImageBuilder {
    install_crypto_provider();
    let config = ImageBuilderConfig {
        cache_dir: cache.to_owned(),
        exe: "/nonexistent".into(),
        http: reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap(),
        credentials: Credentials::default(),
    };
    ImageBuilder::new(config).unwrap()
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let builder = builder(&dir.path().join("cache"));
        let bench = Self { dir, builder };
        for (path, content) in files {
            bench.write(path, content);
        }
        bench
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.dir.path().join("context").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn request(&self) -> BuildRequest {
        BuildRequest::new(self.dir.path().join("context"), "a.azurecr.io/x:1".parse::<ImageRef>().unwrap())
    }

    async fn build(&self) -> BuiltImage {
        self.builder.build(self.request(), |_| {}).await.unwrap_or_else(|e| panic!("{e}"))
    }

    async fn fail(&self) -> BuildError {
        self.builder.build(self.request(), |_| {}).await.unwrap_err()
    }

    fn tree(&self, image: &BuiltImage) -> Tree {
        let mut tree = Tree::default();
        for layer in &image.layers {
            tree.apply_archive(&self.builder.store().blob_path(&layer.digest).unwrap()).unwrap();
        }
        tree
    }

    fn text(&self, image: &BuiltImage, path: &str) -> Option<String> {
        self.tree(image).read(path).unwrap().map(|b| String::from_utf8(b).unwrap())
    }

    fn config(&self, image: &BuiltImage) -> ImageConfig {
        self.builder.store().json(&image.image_id).unwrap()
    }
}

#[tokio::test]
async fn equal_inputs_have_equal_digests_whatever_their_times_and_machine() {
    let files =
        [("Dockerfile", "FROM scratch\nCOPY . /app/\nWORKDIR /app/data\nCMD [\"x\"]\n"), ("b/c", "1"), ("a", "2")];
    let (one, two) = (Bench::new(&files), Bench::new(&files));
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    std::fs::File::open(two.dir.path().join("context/a")).unwrap().set_modified(old).unwrap();
    let (first, second) = (one.build().await, two.build().await);
    assert_eq!(first.digest, second.digest);
    // The same again comes from the cache; a changed byte does not.
    assert_eq!(one.build().await.cached_steps, 2);
    one.write("a", "3");
    let changed = one.build().await;
    assert_ne!(changed.digest, first.digest);
    assert_eq!(changed.cached_steps, 1);
}

#[tokio::test]
async fn only_the_stages_that_are_needed_are_built() {
    let bench = Bench::new(&[
        (
            "Dockerfile",
            "FROM scratch AS one\nCOPY a /a\nFROM registry.invalid/never AS unused\nRUN never\n\
             FROM one AS two\nCOPY b /b\nFROM scratch\nCOPY --from=two --chown=7:8 --chmod=0700 /a /b /got/\nCOPY --from=0 a /a2\n",
        ),
        ("a", "A"),
        ("b", "B"),
    ]);
    let image = bench.build().await;
    let tree = bench.tree(&image);
    let got = tree.get("got/b").unwrap();
    assert_eq!((got.uid, got.gid, got.mode), (7, 8, 0o700));
    assert_eq!(bench.text(&image, "a2").as_deref(), Some("A"));
    let mut request = bench.request();
    request.target = Some("ONE".into());
    let one = bench.builder.build(request, |_| {}).await.unwrap();
    assert_eq!(bench.tree(&one).entries().len(), 1);
}

#[tokio::test]
async fn variables_and_metadata_are_docker_s() {
    let bench = Bench::new(&[(
        "Dockerfile",
        r#"
ARG VERSION=1
ARG BASE=scratch
FROM ${BASE}
ARG VERSION
ARG NAME=app-${VERSION}
ENV HOME_DIR=/srv/$NAME A=1
ENV A=2 B=$A
LABEL version="${VERSION}" "quoted name"='it $s'
WORKDIR $HOME_DIR
WORKDIR data
USER 1000:1000
EXPOSE 80 53/udp 8000-8001
VOLUME ["/data"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD wget localhost
SHELL ["/bin/bash", "-c"]
CMD echo hi
ENTRYPOINT ["/app"]
COPY <<one.txt <<"two.txt" ./
$NAME
one.txt
$NAME
two.txt
"#,
    )]);
    let mut request = bench.request();
    request.build_args = BTreeMap::from([("VERSION".into(), "9".into()), ("UNUSED".into(), "x".into())]);
    request.labels = BTreeMap::from([("aksim.io/environment".into(), "e1".into())]);
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let image = bench.builder.build(request, move |e| seen.lock().unwrap().push(e)).await.unwrap();
    let config = bench.config(&image).config;
    let (env, labels) = (config.env.join(" "), &config.labels);
    assert!(env.ends_with("HOME_DIR=/srv/app-9 A=2 B=1"), "{env}");
    assert_eq!((labels["version"].as_str(), labels["quoted name"].as_str()), ("9", "it $s"));
    assert_eq!(labels["aksim.io/environment"], "e1");
    assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv/app-9/data", "1000:1000"));
    let ports: Vec<&str> = config.exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
    assert_eq!(config.cmd.unwrap(), ["/bin/bash", "-c", "echo hi"]);
    assert_eq!(config.entrypoint.unwrap(), ["/app"]);
    assert_eq!(config.healthcheck.unwrap()["Interval"], 5_000_000_000u64);
    assert_eq!(bench.text(&image, "srv/app-9/data/one.txt").as_deref(), Some("app-9\n"));
    assert_eq!(bench.text(&image, "srv/app-9/data/two.txt").as_deref(), Some("$NAME\n"));
    let warned = events.lock().unwrap().iter().any(|e| matches!(e, BuildEvent::Warning(w) if w.contains("UNUSED")));
    assert!(warned);
}

#[tokio::test]
async fn copies_choose_by_wildcard_dockerignore_and_exclude() {
    let bench = Bench::new(&[
        (
            "Dockerfile",
            "FROM scratch\nCOPY *.txt src/?.rs /flat/\nCOPY --exclude=*.md docs /docs\nCOPY --parents src/./deep/x /p/\nCOPY a.txt /single\n",
        ),
        (".dockerignore", "secret*\n**/*.log\n"),
        ("a.txt", "a"),
        ("secret.txt", "s"),
        ("src/a.rs", "r"),
        ("src/long.rs", "l"),
        ("src/deep/x", "x"),
        ("docs/one.md", "1"),
        ("docs/two.txt", "2"),
        ("docs/x/y.log", "3"),
    ]);
    let image = bench.build().await;
    let tree = bench.tree(&image);
    let paths: Vec<&str> = tree.entries().keys().map(String::as_str).collect();
    let want =
        ["docs", "docs/two.txt", "docs/x", "flat", "flat/a.rs", "flat/a.txt", "p", "p/deep", "p/deep/x", "single"];
    assert_eq!(paths, want);
}

#[tokio::test]
async fn links_of_the_base_are_followed_and_none_leads_out_of_the_context() {
    let bench = Bench::new(&[
        ("Dockerfile", "FROM scratch AS base\nADD base.tar /\nFROM base\nCOPY a /bin/a\nCOPY d /\n"),
        ("a", "A"),
        ("d/bin/b", "B"),
    ]);
    let mut tar = tar::Builder::new(std::fs::File::create(bench.dir.path().join("context/base.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, "usr/bin/", std::io::empty()).unwrap();
    header.set_entry_type(tar::EntryType::Symlink);
    tar.append_link(&mut header, "bin", "usr/bin").unwrap();
    tar.into_inner().unwrap();
    let image = bench.build().await;
    let tree = bench.tree(&image);
    assert!(matches!(tree.get("bin").unwrap().kind, EntryKind::Symlink(_)));
    assert!(tree.get("usr/bin/a").is_some() && tree.get("usr/bin/b").is_some());

    std::os::unix::fs::symlink("/etc/passwd", bench.dir.path().join("context/out")).unwrap();
    bench.write("Dockerfile", "FROM scratch\nCOPY out /out\n");
    assert!(bench.fail().await.to_string().contains("leads out of the build context"));
    bench.write("Dockerfile", "FROM scratch\nCOPY ../../../etc/passwd /out\n");
    assert!(bench.fail().await.to_string().contains("is not in the build context"));
}

#[tokio::test]
async fn packed_archives_are_unpacked_by_add_and_not_by_copy() {
    let bench = Bench::new(&[("Dockerfile", "FROM scratch\nADD a.tgz /in/\nCOPY a.tgz /raw/\n")]);
    let file = std::fs::File::create(bench.dir.path().join("context/a.tgz")).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(5);
    tar.append_data(&mut header, "x/y", &b"hi"[..]).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    let image = bench.build().await;
    let tree = bench.tree(&image);
    assert_eq!(bench.text(&image, "in/x/y").as_deref(), Some("hi"));
    assert_eq!((tree.get("in/x/y").unwrap().uid, tree.get("in/x/y").unwrap().mode), (5, 0o640));
    assert!(tree.get("raw/a.tgz").is_some());
}

#[tokio::test]
async fn errors_point_at_the_instruction() {
    let bench = Bench::new(&[("Dockerfile", ""), (".dockerignore", "hidden"), ("hidden", "x"), ("a", "a")]);
    for (dockerfile, place, message, hint) in [
        (
            "FROM scratch\nCOPY nothing /x\n",
            (2, 1),
            "nothing is not in the build context",
            "relative to the build context",
        ),
        ("FROM scratch\nCOPY hidden /x\n", (2, 1), "hidden is not in the build context", ".dockerignore"),
        ("FROM scratch\nCOPY --chmod=u+x a /x\n", (2, 1), "octal", ""),
        ("FROM scratch\nEXPOSE web\n", (2, 1), "is not a port", ""),
        ("ARG X\nFROM $X\n", (2, 6), "the base $X is empty", "--build-arg"),
        ("FROM scratch\nADD git@github.com:a/b.git /x\n", (2, 1), "Git repository is not supported", ""),
        ("FROM scratch\nENV A=${B:?needed}\n", (2, 1), "B: needed", ""),
    ] {
        bench.write("Dockerfile", dockerfile);
        let BuildError::Dockerfile(error) = bench.fail().await else { panic!("{dockerfile}") };
        assert_eq!((error.line, error.column), place, "{dockerfile}");
        assert!(error.message.contains(message), "{}", error.message);
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{:?}", error.hint);
    }
    bench.write("Dockerfile", "FROM scratch\nCOPY --chown=ada a /x\n");
    assert!(bench.fail().await.to_string().contains("/etc/passwd"));
    let mut request = bench.request();
    request.target = Some("nope".into());
    assert!(bench.builder.build(request, |_| {}).await.unwrap_err().to_string().contains("no stage is called"));
}

#[tokio::test]
async fn a_cancelled_or_late_build_ends() {
    let bench = Bench::new(&[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    let request = bench.request();
    request.cancel.cancel();
    assert!(matches!(bench.builder.build(request, |_| {}).await, Err(BuildError::Cancelled)));
    let mut request = bench.request();
    request.deadline = Some(Duration::ZERO);
    assert!(matches!(bench.builder.build(request, |_| {}).await, Err(BuildError::Deadline(_))));
}

#[tokio::test]
async fn images_go_by_layout_archive_and_docker_save_from_store_to_store() {
    let bench = Bench::new(&[("Dockerfile", "FROM scratch\nCOPY a /a\nONBUILD COPY a /again\n"), ("a", "A")]);
    let built = bench.build().await;
    // Our store is a layout; another builder imports it as it is, and as an archive.
    let layout = bench.builder.store().root().to_owned();
    let archive = bench.dir.path().join("layout.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    tar.append_dir_all(".", &layout).unwrap();
    tar.into_inner().unwrap();
    for (name, path) in [("one", &layout), ("two", &archive)] {
        let other = builder(&bench.dir.path().join(name));
        let imported = other.import(path, None).await.unwrap();
        assert_eq!(imported[0].digest, built.digest);
        assert_eq!(other.list().unwrap()[0].reference, "a.azurecr.io/x:1");
        // Built upon without any registry; the trigger of the base runs.
        bench.write("Dockerfile", "FROM a.azurecr.io/x:1\n");
        let mut request = bench.request();
        request.tag = "a.azurecr.io/y:1".parse().unwrap();
        let upon = other.build(request, |_| {}).await.unwrap();
        assert_eq!(upon.layers.len(), 2);
    }
    let saved = bench.dir.path().join("saved.tar");
    save_as_docker_does(&bench, &built, &saved);
    let third = builder(&bench.dir.path().join("three"));
    let imported = third.import(&saved, None).await.unwrap();
    assert_eq!(imported[0].reference.to_string(), "docker.io/library/saved:1");
    std::fs::write(&saved, "nothing").unwrap();
    assert!(third.import(&saved, None).await.unwrap_err().to_string().contains("is not a tar archive"));
}

fn save_as_docker_does(bench: &Bench, built: &BuiltImage, path: &Path) {
    let blob = |digest: &str| std::fs::read(bench.builder.store().blob_path(digest).unwrap()).unwrap();
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    };
    add("config.json", &blob(&built.image_id));
    add("layer/layer.tar", &blob(&built.layers[0].digest));
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": ["saved:1"], "Layers": ["layer/layer.tar"]}]);
    add("manifest.json", manifest.to_string().as_bytes());
    tar.into_inner().unwrap();
}

#[tokio::test]
async fn prune_keeps_what_a_name_needs() {
    let bench = Bench::new(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "A")]);
    let old = bench.build().await;
    bench.write("a", "B");
    let new = bench.build().await;
    assert_eq!(bench.builder.prune(Duration::from_secs(3600)).unwrap(), Pruned::default());
    assert_eq!(bench.builder.prune(Duration::ZERO).unwrap().files, 3);
    assert!(!bench.builder.store().has(&old.digest).unwrap());
    let manifest: Manifest = bench.builder.store().json(&new.digest).unwrap();
    assert!(bench.builder.store().has(&manifest.layers[0].digest).unwrap());
}

/// Golden pairs: `fixtures/images/plan/NAME.Dockerfile` → `NAME.json`.
#[test]
fn plans_are_golden() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/images/plan");
    let platform = Platform { os: "linux".into(), architecture: "amd64".into(), variant: None };
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "Dockerfile") {
            continue;
        }
        let source = Source { name: "Dockerfile".into(), text: std::fs::read_to_string(&path).unwrap().into() };
        let plan = Plan::new(&parse(&source).unwrap(), &source, &BTreeMap::new(), None, &platform).unwrap();
        let got = serde_json::to_string_pretty(&plan).unwrap() + "\n";
        let golden = path.with_extension("json");
        if std::env::var_os("AKSIM_UPDATE_FIXTURES").is_some() {
            std::fs::write(&golden, &got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(&golden).unwrap(), "{}", path.display());
    }
}
