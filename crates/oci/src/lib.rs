//! OCI image config, manifest, index, layout directories and archives.
//!
//! [`assemble`] and [`index`] turn layers and a configuration into bytes that are the same wherever they are made;
//! [`load`] goes the other way, from a name's digest to a verified image for one platform, wherever the documents
//! come from (a registry, a layout, a cache). [`Layout`] reads layouts, [`write_layout_dir`],
//! [`write_layout_tar`] and [`write_docker_archive`] write them.
//!
//! oci-spec's types stay inside this crate: what goes in and out is [`Document`], [`BlobInfo`] and the nouns of
//! `kiln-core`. Specifications: <https://github.com/opencontainers/image-spec>.

mod attestation;
mod blob;
mod compose;
mod docker;
mod document;
mod error;
mod image;
mod json;
mod layout;
mod load;
pub mod media;
mod platform;
mod read;
mod verify;

pub use attestation::{Attestation, IN_TOTO};
pub use blob::{BlobSource, Documents};
pub use compose::{JoinOptions, Part, join, manifest};
pub use docker::{Archive, ArchivedImage, ArchivedLayer, DockerArchive};
pub use document::{BlobInfo, Document};
pub use error::OciError;
pub use image::{AssembleOptions, Image, MediaTypes, assemble, attested_index, index};
pub use layout::{
    ARCHIVE_HEAD, ArchiveWriter, Layout, LayoutEntry, Root, archive_entry, write_archive_into,
    write_docker_archive, write_layout_dir, write_layout_tar, write_partial_archive,
};
pub use load::{LoadedImage, MAX_DOCUMENT, load};
pub use platform::matches;
pub use read::{Children, children, media_type, subject};
pub use verify::Verify;
