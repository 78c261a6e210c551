use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

fn header(kind: EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o640);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = header(EntryType::Regular, content.len());
    // By the raw field: the crate's setter refuses what a hostile archive may hold.
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

fn link(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, to: &str) {
    let mut header = header(kind, 0);
    header.as_gnu_mut().unwrap().linkname[..to.len()].copy_from_slice(to.as_bytes());
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    builder.append(&header, &[][..]).unwrap();
}

fn diff_id(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Unpacks an archive as the ids of this test's user allow.
fn unpack(dir: &Path, bytes: &[u8], media_type: &str, plain: &[u8]) -> io::Result<PathBuf> {
    let blob = dir.join("blob");
    std::fs::write(&blob, bytes).unwrap();
    let ids = if nix::unistd::geteuid().is_root() { IdMapping::Root } else { IdMapping::Single };
    let target = dir.join("layer");
    layer(&blob, &target, media_type, &diff_id(plain), ids).map(|_| target)
}

/// Fills an archive.
type Build<'a> = Box<dyn Fn(&mut tar::Builder<Vec<u8>>) + 'a>;

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

#[test]
fn keeps_content_modes_times_and_links() {
    let dir = tempfile::tempdir().unwrap();
    let tar = archive(|b| {
        file(b, "./etc/a", b"one");
        link(b, EntryType::Symlink, "etc/s", "/etc/a");
        link(b, EntryType::Link, "etc/h", "etc/a");
        file(b, "etc/a", b"replaced");
    });
    let root = unpack(dir.path(), &tar, TAR, &tar).unwrap();
    assert_eq!(std::fs::read(root.join("etc/a")).unwrap(), b"replaced");
    assert_eq!(std::fs::read(root.join("etc/h")).unwrap(), b"one");
    assert_eq!(std::fs::read_link(root.join("etc/s")).unwrap(), Path::new("/etc/a"));
    let metadata = std::fs::metadata(root.join("etc/a")).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.mtime()), (0o640, 1_700_000_000));
}

#[test]
fn makes_whiteouts_for_overlayfs() {
    let dir = tempfile::tempdir().unwrap();
    let tar = archive(|b| file(b, "etc/.wh.gone", b""));
    let root = unpack(dir.path(), &tar, TAR, &tar).unwrap();
    let metadata = std::fs::symlink_metadata(root.join("etc/gone")).unwrap();
    assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0);
}

#[test]
fn reads_gzip_and_zstd() {
    use std::io::Write;
    let tar = archive(|b| file(b, "x", &[7; 100_000]));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let packed = [
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.finish().unwrap()),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd::encode_all(&tar[..], 1).unwrap()),
    ];
    for (media_type, bytes) in packed {
        let dir = tempfile::tempdir().unwrap();
        let root = unpack(dir.path(), &bytes, media_type, &tar).unwrap();
        assert_eq!(std::fs::metadata(root.join("x")).unwrap().len(), 100_000);
    }
}

#[test]
fn nothing_leaves_the_layer() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("victim");
    std::fs::create_dir(&target).unwrap();
    let hostile: [(&str, Build<'_>); 4] = [
        ("parent", Box::new(|b| file(b, "../escaped", b"x"))),
        ("deep parent", Box::new(|b| file(b, "a/../../escaped", b"x"))),
        (
            "absolute link",
            Box::new(|b| {
                link(b, EntryType::Symlink, "out", target.to_str().unwrap());
                file(b, "out/escaped", b"x");
            }),
        ),
        ("hard link", Box::new(|b| link(b, EntryType::Link, "h", "../../../../etc/passwd"))),
    ];
    for (name, build) in hostile {
        let dir = tempfile::tempdir().unwrap();
        let tar = archive(|b| build(b));
        let result = unpack(dir.path(), &tar, TAR, &tar);
        // A link is followed inside the layer, where its target does not exist.
        assert!(result.is_err() || name == "absolute link", "{name}: {result:?}");
        assert!(!dir.path().join("escaped").exists(), "{name}");
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn wrong_digest_and_bombs_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tar = archive(|b| file(b, "x", b"y"));
    let error = unpack(dir.path(), &tar, TAR, b"something else").unwrap_err();
    assert!(error.to_string().contains("its image says"), "{error}");
    assert!(!dir.path().join("layer").exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the blob");

    let mut bomb = Measured { inner: io::repeat(0), hash: Sha256::new(), left: 1000 };
    let error = io::copy(&mut bomb, &mut io::sink()).unwrap_err();
    assert!(error.to_string().contains("decompression bomb"), "{error}");
}
