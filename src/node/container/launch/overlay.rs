//! A container's root from read-only layers and a writable one.

use super::{LaunchError, doing, fd_path};
use crate::container::wire::IdMapping;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Layers of a root file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// Folder of the unpacked layers.
    pub layers_dir: PathBuf,
    /// Names in it, lowest layer first.
    pub layers: Vec<String>,
    /// Whether to copy instead, because overlayfs cannot be mounted here.
    pub copy: bool,
}

/// Options that differ where the mounter is not root of the machine.
fn mode_options(ids: IdMapping) -> &'static str {
    match ids {
        IdMapping::Root => "",
        IdMapping::Mapped | IdMapping::Single => ",userxattr",
    }
}

/// Mounts the layers and a new writable layer (`upper`, `work` in `directory`) at
/// `directory/rootfs`.
///
/// # Errors
/// What failed.
pub fn mount_root(overlay: &Overlay, directory: &Path, ids: IdMapping) -> Result<PathBuf, LaunchError> {
    let root = directory.join("rootfs");
    std::fs::create_dir_all(&root).map_err(doing("make the root folder"))?;
    if overlay.copy {
        for layer in &overlay.layers {
            crate::container::image::copy::layer(&overlay.layers_dir.join(layer), &root)
                .map_err(doing(format!("copy layer {layer}")))?;
        }
        return Ok(root);
    }
    for name in ["upper", "work"] {
        std::fs::create_dir_all(directory.join(name)).map_err(doing("make the writable layer"))?;
    }
    // Layer names relative to the working folder keep the options within a page; descriptors
    // keep commas and colons of the paths out of them.
    let home = File::open("/").map_err(doing("open /"))?;
    let base = File::open(directory).map_err(doing("open the container's folder"))?;
    std::env::set_current_dir(&overlay.layers_dir).map_err(doing("open the layers"))?;
    let base_path = fd_path(&base);
    let lower: Vec<&str> = overlay.layers.iter().rev().map(String::as_str).collect();
    let options = format!(
        "lowerdir={},upperdir={base}/upper,workdir={base}/work{}",
        lower.join(":"),
        mode_options(ids),
        base = base_path.display(),
    );
    let attempt = |options: &str| {
        mount(Some("overlay"), &base_path.join("rootfs"), Some("overlay"), MsFlags::empty(), Some(options))
    };
    // `volatile` skips syncing a writable layer that is thrown away anyway; old kernels lack it.
    let mounted = attempt(&format!("{options},volatile")).or_else(|_| attempt(&options));
    nix::unistd::fchdir(&home).map_err(doing("return to /"))?;
    mounted.map_err(doing(format!("mount {} layers", overlay.layers.len())))?;
    Ok(root)
}

/// Whether overlayfs can be mounted below `state`: tried once, by the agent at its start.
pub fn works(state: &Path, ids: IdMapping) -> bool {
    let probe = state.join("overlay-probe");
    let try_mount = || -> Result<(), LaunchError> {
        std::fs::create_dir_all(probe.join("layers/lower")).map_err(doing("make folders"))?;
        let overlay = Overlay { layers_dir: probe.join("layers"), layers: vec!["lower".into()], copy: false };
        let root = mount_root(&overlay, &probe, ids)?;
        let written = std::fs::write(root.join("file"), "x");
        umount2(&root, MntFlags::MNT_DETACH).map_err(doing("unmount"))?;
        written.map_err(doing("write"))
    };
    let works = try_mount().inspect_err(|e| eprintln!("overlayfs does not work here: {e}")).is_ok();
    if let Err(e) = std::fs::remove_dir_all(&probe)
        && e.kind() != io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {e}", probe.display());
    }
    works
}
