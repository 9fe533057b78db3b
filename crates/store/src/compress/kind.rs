//! The ways to compress a layer, and what each of them asks for.

use crate::estargz;

/// How a tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// RFC 1952.
    Gzip {
        /// 1 is fast, 9 is small; 0 is not compressed.
        level: u32,
    },
    /// RFC 8878.
    Zstd {
        /// 1 is fast, 22 is small; 0 is zstd's own default.
        level: u32,
    },
    /// RFC 1952, a member for each file, with a list of contents:
    /// <https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md>. Another tar than the others'.
    Estargz {
        /// As of gzip.
        level: u32,
    },
    /// Not at all.
    None,
}

/// From this level on zstd would take tables of 32 to 64 MiB for a block of 4. With 24 MiB frames are 0.1 % larger (decisions/0018).
pub(super) const LARGE_TABLES: i32 = 10;

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip { level: Self::GZIP }
    }
}

impl Compression {
    /// The level of gzip where none is asked for; docs/decisions/0004 has the figures.
    pub const GZIP: u32 = 2;
    /// That of zstd: its own default.
    pub const ZSTD: u32 = 3;

    /// Returns the type of the blobs it makes.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Gzip { .. } | Self::Estargz { .. } => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd { .. } => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::None => "application/vnd.oci.image.layer.v1.tar",
        }
    }

    /// Names all of it that decides the bytes: it changes whenever they may.
    pub fn version(self) -> String {
        match self {
            Self::Gzip { level } => format!("packer 3 zlib-rs-0.6.8, compression gzip {level}"),
            Self::Zstd { level } => {
                let tables = if level >= LARGE_TABLES.cast_unsigned() { ", small tables" } else { "" };
                let version = zstd::zstd_safe::version_string();
                format!("packer 2 zstd-{version}, compression zstd {level}{tables}")
            }
            Self::Estargz { level } => format!("packer 2 zlib-rs-0.6.8, compression estargz {level}"),
            // As it was written when there was gzip only.
            Self::None => "packer 1 zlib-rs-0.6.8, compression none".to_owned(),
        }
    }

    /// Returns how many threads stay below 100 MiB together, with a block in each, two more on their way, and what a block
    /// becomes. The bytes do not depend on it.
    pub(super) const fn most_threads(self) -> usize {
        match self {
            Self::Gzip { .. } | Self::None => 8,
            Self::Estargz { .. } => 7,
            Self::Zstd { level: 0..=4 } => 6,
            Self::Zstd { level: 5..=8 } => 4,
            Self::Zstd { level: 9 } => 3,
            Self::Zstd { .. } => 2,
        }
    }

    /// Returns how many blocks there are for so many threads: one with each, one that is filled and one that is written. Of gzip's,
    /// which are small, some more wait for a thread: neither a read that goes to the disk nor a thread that has lost its
    /// processor stops the others then (docs/decisions/0036).
    pub(super) const fn most_blocks(self, threads: usize) -> usize {
        let waiting = match self {
            Self::Gzip { .. } => 12,
            Self::Estargz { .. } | Self::Zstd { .. } | Self::None => 0,
        };
        threads + 2 + waiting
    }

    /// Bytes of a block of input at most. Part of what decides the output.
    pub(super) const fn block(self) -> usize {
        match self {
            Self::Gzip { .. } | Self::None => 1 << 20,
            Self::Zstd { .. } => 4 << 20,
            // Most headers between two files fit behind the first one's content.
            Self::Estargz { .. } => estargz::CHUNK + (64 << 10),
        }
    }
}
