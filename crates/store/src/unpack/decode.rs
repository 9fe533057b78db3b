//! From a blob's bytes to a tar's bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;
use kiln_core::Digest;

use super::Hashing;
use super::pipe::Filler;
use crate::error::StoreError;

/// A blob's bytes, about to be decompressed.
pub(crate) struct Source<'a> {
    layer: Digest,
    tar: Box<dyn Read + 'a>,
    /// What the caller's reader said when it failed: not the decompressor's fault.
    failed: Failed,
}

type Failed = Arc<Mutex<Option<String>>>;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A zstd skippable frame, which chunked layers may start with: `0x184D2A5?`, little-endian.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];

impl<'a> Source<'a> {
    /// Looks at the first bytes for the compression: registries hold layers that say gzip and are not, docker reads
    /// them too, and the diff id decides in the end.
    pub(crate) fn new(layer: &Digest, media_type: &str, reader: impl Read + 'a) -> Result<Self, StoreError> {
        if !is_layer(media_type) {
            return Err(StoreError::MediaType { media_type: media_type.to_owned() });
        }
        let failed = Failed::default();
        let tap = Tap { inner: reader, failed: Arc::clone(&failed) };
        let mut reader = BufReader::with_capacity(128 << 10, tap);
        // One fill may be short; four bytes come from any source in the first.
        let start = reader
            .fill_buf()
            .map_err(|error| StoreError::LayerRead { layer: *layer, message: error.to_string() })?;
        let tar: Box<dyn Read + 'a> = if start.starts_with(GZIP) {
            Box::new(MultiGzDecoder::new(reader))
        } else if start.starts_with(ZSTD) || start.get(1..4) == Some(ZSTD_SKIPPABLE) {
            let decoder = zstd::Decoder::with_buffer(reader)
                .map_err(|error| StoreError::Decompress { layer: *layer, reason: error.to_string() })?;
            Box::new(decoder)
        } else {
            Box::new(reader)
        };
        Ok(Self { layer: *layer, tar, failed })
    }
}

/// Decompresses all of it into the pipe, and returns the digest of what came out.
pub(crate) fn decode(source: Source<'_>, pipe: Filler, limit: u64) -> Result<Digest, StoreError> {
    let Source { layer, tar, failed } = source;
    let mut tar = Hashing::new(tar);
    loop {
        let mut buffer = pipe.buffer();
        let mut filled = 0;
        while filled < buffer.len() {
            match tar.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let said = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return Err(match said {
                        Some(message) => StoreError::LayerRead { layer, message },
                        None => StoreError::Decompress { layer, reason: error.to_string() },
                    });
                }
            }
        }
        if tar.count() > limit {
            return Err(StoreError::TooLarge { layer, limit, unit: "bytes".to_owned() });
        }
        let last = filled < buffer.len();
        buffer.truncate(filled);
        if !pipe.send(buffer) {
            // The writer stopped, and says why.
            return Err(StoreError::Decompress { layer, reason: "stopped".to_owned() });
        }
        if last {
            pipe.end();
            return Ok(tar.finish().0);
        }
    }
}

/// Layer types of OCI and docker, whatever their compression:
/// <https://github.com/opencontainers/image-spec/blob/main/media-types.md>.
fn is_layer(media_type: &str) -> bool {
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
