//! What is made of a result.

use std::path::PathBuf;

use kiln_core::{ImageRef, Platform};
use kiln_registry::DaemonOptions;
use serde::{Deserialize, Serialize};

/// What to make of the result: one `--output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// An OCI image layout.
    Oci {
        /// File or directory; none is standard output.
        dest: Option<PathBuf>,
        /// Whether it is an archive.
        tar: bool,
        /// How the image is written.
        form: ImageForm,
    },
    /// What `docker load` takes.
    Docker {
        /// File; none is standard output.
        dest: Option<PathBuf>,
        /// How the image is written.
        form: ImageForm,
    },
    /// The files of the image in a directory.
    Local {
        /// Directory.
        dest: PathBuf,
    },
    /// The files of the image in a tar.
    Tar {
        /// File; none is standard output.
        dest: Option<PathBuf>,
    },
    /// The local image store, registries, or both.
    Image {
        /// How the image is written.
        form: ImageForm,
        /// Whether it goes to the registries that its names say.
        push: bool,
        /// Whether the local image store keeps it under its names.
        store: bool,
    },
    /// A running docker or podman (`--load`).
    Daemon {
        /// Where it is looked for.
        daemon: DaemonOptions,
        /// How the image is written.
        form: ImageForm,
    },
    /// Nothing: the steps run, and the store remembers them.
    CacheOnly,
}

/// How an image is written. Outputs of equal forms hold the same bytes.
///
/// The words are those of buildx: <https://docs.docker.com/build/exporters/image-registry/>.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageForm {
    /// Names of this output alone, besides those of the build.
    pub names: Vec<ImageRef>,
    /// How new layers are packed.
    pub compression: LayerCompression,
    /// How hard the compressor tries: 0 to 9 for gzip and estargz, 0 to 22 for zstd; kiln's default if none.
    pub level: Option<u32>,
    /// Whether the base's layers are packed that way as well. Else they stay as they are.
    pub force_compression: bool,
    /// Whether media types are OCI's (true) or docker's (false); OCI's if none.
    pub oci_mediatypes: Option<bool>,
    /// Later ones replace earlier ones of equal place and key.
    pub annotations: Vec<Annotation>,
}

/// How the layers of an image are packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerCompression {
    /// RFC 1952.
    #[default]
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Not at all.
    Uncompressed,
    /// Gzip, a file at a time, with a list of contents at the end: files can be had without the layer.
    /// <https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md>
    Estargz,
}

/// A remark on an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Where it is written.
    pub place: AnnotationPlace,
    /// The platform whose image it is for; every one's if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Its name, such as `org.opencontainers.image.title`.
    pub key: String,
    /// What it says.
    pub value: String,
}

/// Where an annotation is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnotationPlace {
    /// In an image's manifest.
    #[default]
    Manifest,
    /// In the index.
    Index,
    /// In the index, beside an image's digest.
    ManifestDescriptor,
    /// Beside the index's digest, where an OCI layout names it.
    IndexDescriptor,
}

impl Output {
    /// The local image store, and nothing special: what is made where nothing else is asked for.
    pub fn image() -> Self {
        Self::Image { form: ImageForm::default(), push: false, store: true }
    }

    /// Returns how its image is written; none if it holds no image.
    pub fn form(&self) -> Option<&ImageForm> {
        match self {
            Self::Oci { form, .. }
            | Self::Docker { form, .. }
            | Self::Daemon { form, .. }
            | Self::Image { form, .. } => Some(form),
            Self::Local { .. } | Self::Tar { .. } | Self::CacheOnly => None,
        }
    }

    /// The same, to be changed.
    pub fn form_mut(&mut self) -> Option<&mut ImageForm> {
        match self {
            Self::Oci { form, .. }
            | Self::Docker { form, .. }
            | Self::Daemon { form, .. }
            | Self::Image { form, .. } => Some(form),
            Self::Local { .. } | Self::Tar { .. } | Self::CacheOnly => None,
        }
    }
}

impl ImageForm {
    /// Whether media types are docker's.
    pub fn docker_mediatypes(&self) -> bool {
        self.oci_mediatypes == Some(false)
    }

    /// Says what of it cannot be had, whatever the image.
    ///
    /// # Errors
    /// The reason, in the words of the keys of `--output`.
    pub fn check(&self) -> Result<(), String> {
        let name = self.compression.name();
        match (self.level, self.compression.levels()) {
            (Some(_), None) => return Err(format!("compression={name} has no compression-level")),
            (Some(level), Some(most)) if level > most => {
                return Err(format!("compression-level={level}: {name} has 0 to {most}"));
            }
            _ => {}
        }
        if self.docker_mediatypes() {
            if matches!(self.compression, LayerCompression::Zstd | LayerCompression::Estargz) {
                return Err(format!(
                    "oci-mediatypes=false: docker's media types have no {name} layers; leave it out"
                ));
            }
            if !self.annotations.is_empty() {
                return Err(
                    "oci-mediatypes=false: docker's media types have no annotations; leave it out".to_owned()
                );
            }
        }
        for Annotation { place, platform, key, .. } in &self.annotations {
            if key.is_empty() {
                return Err("an annotation has no key".to_owned());
            }
            let of_index = matches!(place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor);
            if of_index && let Some(platform) = platform {
                return Err(format!(
                    "annotation {key}: an index is of every platform, so leave [{platform}] out"
                ));
            }
        }
        Ok(())
    }
}

impl LayerCompression {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Gzip, Self::Zstd, Self::Uncompressed, Self::Estargz];

    /// Returns buildx's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Uncompressed => "uncompressed",
            Self::Estargz => "estargz",
        }
    }

    /// Returns the highest level; none if there are no levels.
    pub const fn levels(self) -> Option<u32> {
        match self {
            Self::Gzip | Self::Estargz => Some(9),
            Self::Zstd => Some(22),
            Self::Uncompressed => None,
        }
    }
}

impl AnnotationPlace {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Manifest, Self::Index, Self::ManifestDescriptor, Self::IndexDescriptor];

    /// Returns buildx's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::ManifestDescriptor => "manifest-descriptor",
            Self::IndexDescriptor => "index-descriptor",
        }
    }
}
