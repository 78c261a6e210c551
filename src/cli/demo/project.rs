//! The sample shop, carried in the program, written to a working folder.

use crate::failure::Failure;
use aksim_runtime::files::{PUBLIC, write_atomic};
use rust_embed::RustEmbed;
use std::path::Path;

/// Name of the demo's environment: the sample's own name stays free for the user.
pub const NAME: &str = "shop-demo";

#[derive(RustEmbed)]
#[folder = "../../fixtures/shop"]
#[exclude = "target/*"]
struct Files;

/// Writes the files whose content differs, so that compilers see unchanged times; their number.
pub fn write(folder: &Path) -> Result<usize, Failure> {
    let mut written = 0;
    for name in Files::iter() {
        let Some(file) = Files::get(&name) else { continue };
        let mut content = file.data.into_owned();
        if name == "aksim.toml" {
            let text = String::from_utf8_lossy(&content).replacen("name = \"shop\"", &format!("name = \"{NAME}\""), 1);
            content = text.into_bytes();
        }
        let path = folder.join(name.as_ref());
        if std::fs::read(&path).is_ok_and(|there| there == content) {
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        write_atomic(&path, &content, PUBLIC)?;
        written += 1;
    }
    Ok(written)
}

/// Arguments of cargo that fetch what the sample in `folder` depends on.
pub fn fetch(folder: &Path) -> [String; 4] {
    let manifest = folder.join("Cargo.toml").display().to_string();
    ["fetch".to_owned(), "--locked".to_owned(), "--manifest-path".to_owned(), manifest]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_carried_whole_and_written_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path()).unwrap() > 30);
        assert_eq!(write(dir.path()).unwrap(), 0);
        let config = aksim_config::project::load(&dir.path().join("aksim.toml")).unwrap();
        assert_eq!(config.name.as_str(), NAME);
        assert_eq!(config.services.len(), 4);
        assert!(dir.path().join(".cargo/config.toml").exists());
    }
}
