//! Reading with the digest checked at the end.

use std::io::{self, Read};

use kiln_core::DigestHasher;

use crate::{BlobInfo, OciError};

/// Passes bytes on and fails at the end, or beyond the promised size, if they are not the promised ones. The failure
/// is an [`io::Error`] of kind `InvalidData` around an [`OciError`]. Whoever stops before the end has checked
/// nothing.
#[derive(Debug)]
pub struct Verify<R> {
    inner: R,
    hasher: Option<DigestHasher>,
    wanted: BlobInfo,
    read: u64,
}

impl<R: Read> Verify<R> {
    /// Starts at the blob's first byte.
    pub fn new(inner: R, wanted: BlobInfo) -> Self {
        Self { inner, hasher: Some(DigestHasher::new()), wanted, read: 0 }
    }

    fn check(&mut self) -> Result<(), OciError> {
        let BlobInfo { digest, size, .. } = self.wanted;
        if self.read != size {
            return Err(OciError::SizeMismatch { digest, wanted: size, actual: self.read });
        }
        match self.hasher.take().map(DigestHasher::finish) {
            Some(actual) if actual != digest => Err(OciError::DigestMismatch { wanted: digest, actual }),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Verify<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            return Ok(0);
        }
        self.read += count as u64;
        if self.read > self.wanted.size {
            let error = OciError::SizeMismatch {
                digest: self.wanted.digest,
                wanted: self.wanted.size,
                actual: self.read,
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}
