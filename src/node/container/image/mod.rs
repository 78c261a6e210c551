//! Images on the node: pulled or imported, unpacked once a layer, shared by all environments.

pub mod copy;
mod layout;
mod registry;
pub mod store;
pub mod unpack;

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os};

/// The manifest of an index that is for this machine.
fn for_this_machine(index: &ImageIndex) -> Result<&Descriptor, String> {
    let architecture = Arch::default();
    let fits = |d: &&Descriptor| {
        d.platform().as_ref().is_none_or(|p| *p.os() == Os::Linux && *p.architecture() == architecture)
    };
    index.manifests().iter().find(fits).ok_or_else(|| format!("no matching manifest for linux/{architecture}"))
}
