//! Media types: OCI's and docker's names for the same few things.
//! <https://github.com/opencontainers/image-spec/blob/main/media-types.md>,
//! <https://distribution.github.io/distribution/spec/manifest-v2-2/>

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A gzip OCI layer.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A zstd OCI layer.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// A docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// An uncompressed docker layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A gzip docker layer.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A docker manifest, schema 1: refused.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// A signed docker manifest, schema 1: refused.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// What a client says it takes when it asks for a manifest, best first.
pub const MANIFESTS: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Returns how a layer of this media type is packed, or none if it is no layer that kiln reads (foreign layers,
/// which lie on other servers, among them).
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    match media_type {
        OCI_LAYER | DOCKER_LAYER => Some(Compression::None),
        OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => Some(Compression::Gzip),
        // The last is in no specification; BuildKit wrote it for a while.
        OCI_LAYER_ZSTD | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// Returns the name of a layer type in the other family, or none if it has none there (docker has no zstd).
pub(crate) fn layer_in(docker: bool, media_type: &str) -> Option<&'static str> {
    match (docker, layer_compression(media_type)?) {
        (true, Compression::None) => Some(DOCKER_LAYER),
        (true, Compression::Gzip) => Some(DOCKER_LAYER_GZIP),
        (true, Compression::Zstd) => None,
        (false, Compression::None) => Some(OCI_LAYER),
        (false, Compression::Gzip) => Some(OCI_LAYER_GZIP),
        (false, Compression::Zstd) => Some(OCI_LAYER_ZSTD),
    }
}

/// Returns whether this is an image manifest's type.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Returns whether this is an index's type.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// OCI's name for a layer's media type.
pub fn oci_layer(media_type: &str) -> &str {
    layer_in(false, media_type).unwrap_or(media_type)
}
