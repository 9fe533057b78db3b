//! OCI image layouts, as directories and as archives, and docker's archive.
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

mod archive;
mod directory;
mod files;
mod index;
mod reader;
mod scan;
mod walk;

pub use archive::{
    ARCHIVE_HEAD, ArchiveWriter, archive_entry, write_archive_into, write_docker_archive, write_layout_tar,
    write_partial_archive,
};
pub use directory::write_layout_dir;
pub(crate) use files::Files;
pub use reader::{Layout, LayoutEntry};

use std::collections::BTreeMap;

use kiln_core::{Digest, ImageRef, Platform};

use crate::Document;

/// Content of a layout's `oci-layout`.
const LAYOUT_VERSION: &str = "1.0.0";
/// The annotation with a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with a whole name, containerd's and BuildKit's.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// An image or index to be written, and the names it gets.
#[derive(Debug, Clone)]
pub struct Root<'a> {
    /// The manifest or index.
    pub document: &'a Document,
    /// A manifest's platform.
    pub platform: Option<&'a Platform>,
    /// May be empty: the image is then found by its digest, or because it is alone.
    pub names: &'a [ImageRef],
    /// What is said of it in `index.json`, besides its names.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// A name that only the layout knows, as in `oci:DIRECTORY:TAG`.
    pub tag: Option<&'a str>,
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
