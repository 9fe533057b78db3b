//! From compressed bytes to a tar's bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::entry::{BLOCK, begins_tar};
use super::pipe::Filler;
use crate::error::ArchiveError;

/// Compressed bytes, about to be decompressed.
pub(crate) struct Source<'a> {
    tar: Box<dyn Read + 'a>,
    /// What the caller's reader said when it failed: not the decompressor's fault.
    failed: Failed,
}

type Failed = Arc<Mutex<Option<String>>>;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A zstd skippable frame, which chunked layers may start with: `0x184D2A5?`, little-endian.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = b"\xfd7zXZ\0";

/// KiB that decompressing xz may take. `xz -9` needs 65 MiB; what a file may ask for is 4 GiB.
const XZ_MEMORY: u32 = 256 << 10;

impl<'a> Source<'a> {
    /// Looks at the first bytes for the compression: registries hold layers that say gzip and are not, docker reads
    /// them too, and the diff id decides in the end.
    pub(crate) fn new(reader: impl Read + 'a) -> Result<Self, ArchiveError> {
        let failed = Failed::default();
        let tap = Tap { inner: reader, failed: Arc::clone(&failed) };
        let mut reader = BufReader::with_capacity(128 << 10, tap);
        // One fill may be short; six bytes come from any source in the first.
        let start = reader.fill_buf().map_err(|error| ArchiveError::Read { message: error.to_string() })?;
        let tar: Box<dyn Read + 'a> = if start.starts_with(GZIP) {
            Box::new(MultiGzDecoder::new(reader))
        } else if start.starts_with(ZSTD) || start.get(1..4) == Some(ZSTD_SKIPPABLE) {
            let decoder = zstd::Decoder::with_buffer(reader)
                .map_err(|error| ArchiveError::Decompress { reason: error.to_string() })?;
            Box::new(decoder)
        } else if start.starts_with(BZIP2) {
            Box::new(MultiBzDecoder::new(reader))
        } else if start.starts_with(XZ) {
            Box::new(XzReader::new_mem_limit(reader, true, XZ_MEMORY))
        } else {
            Box::new(reader)
        };
        Ok(Self { tar, failed })
    }

    /// Returns how many bytes of the tar were read; none at its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        loop {
            match self.tar.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| self.failure(&error)),
            }
        }
    }

    /// Returns what comes out, for who does not care why it fails.
    pub(crate) fn into_tar(self) -> Box<dyn Read + 'a> {
        self.tar
    }

    /// Returns what a failure means.
    fn failure(&self, error: &io::Error) -> ArchiveError {
        match self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(message) => ArchiveError::Read { message },
            None => ArchiveError::Decompress { reason: error.to_string() },
        }
    }
}

/// Returns whether a file is a tar, compressed or not: whether its first header is one. What does not decompress is
/// none; what needs too much memory for that is an error.
pub(crate) fn is_tar(reader: impl Read) -> Result<bool, ArchiveError> {
    let mut source = match Source::new(reader) {
        Err(ArchiveError::Decompress { .. }) => return Ok(false),
        source => source?,
    };
    let mut block = [0; BLOCK];
    match source.tar.read_exact(&mut block) {
        Ok(()) => Ok(begins_tar(&block)),
        Err(error) => match source.failure(&error) {
            ArchiveError::Decompress { .. } if error.kind() != io::ErrorKind::OutOfMemory => Ok(false),
            failure => Err(failure),
        },
    }
}

/// Returns whether what begins so is meant as an archive: by the marks of compressions and a tar's first header, of which
/// 512 bytes are enough. No text begins so.
pub fn begins_archive(start: &[u8]) -> bool {
    let compressed = [GZIP, ZSTD, BZIP2, XZ].iter().any(|mark| start.starts_with(mark));
    // An empty tar is blocks of zeros.
    let tar = |block: &[u8; BLOCK]| begins_tar(block) || block.iter().all(|&byte| byte == 0);
    compressed || start.get(1..4) == Some(ZSTD_SKIPPABLE) || start.first_chunk().is_some_and(tar)
}

/// Decompresses all of it into the pipe, and shows what came out to `see`.
pub(crate) fn decode(
    mut source: Source<'_>,
    pipe: Filler,
    limit: u64,
    mut see: impl FnMut(&[u8]),
) -> Result<(), ArchiveError> {
    let mut count = 0;
    loop {
        let mut buffer = pipe.buffer();
        let mut filled = 0;
        while filled < buffer.len() {
            match source.read(&mut buffer[filled..])? {
                0 => break,
                length => filled += length,
            }
        }
        count += filled as u64;
        if count > limit {
            return Err(ArchiveError::TooLarge { limit, unit: "bytes".to_owned() });
        }
        let last = filled < buffer.len();
        buffer.truncate(filled);
        see(&buffer);
        if !pipe.send(buffer) {
            // The writer stopped, and says why.
            return Err(ArchiveError::Decompress { reason: "stopped".to_owned() });
        }
        if last {
            pipe.end();
            return Ok(());
        }
    }
}

/// Layer types of OCI and docker, whatever their compression:
/// <https://github.com/opencontainers/image-spec/blob/main/media-types.md>.
pub(crate) fn is_layer(media_type: &str) -> bool {
    const KNOWN: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    KNOWN.iter().any(|known| {
        media_type
            .strip_prefix(known)
            .is_some_and(|rest| matches!(rest, "" | "+gzip" | ".gzip" | "+zstd" | ".zstd"))
    })
}

/// Remembers what went wrong below the decompressor.
struct Tap<R> {
    inner: R,
    failed: Failed,
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
        result
    }
}
