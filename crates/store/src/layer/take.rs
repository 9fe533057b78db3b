//! What others packed, on its way into the store: layers that become blobs, archives that must be looked at twice.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, Digest, DigestHasher, IoResultExt as _, Layer};

use super::pack::threads;
use crate::compress::{Compression, Packed};
use crate::error::StoreError;
use crate::store::Store;
use crate::unpack;

/// An uncompressed copy of what came from a pipe or compressed; it goes when this is dropped.
#[derive(Debug)]
pub struct Spooled {
    path: PathBuf,
}

impl Spooled {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Store {
    /// Makes a layer's tar a blob of the store. One with gzip or zstd stays as it is; a plain one, or one with a
    /// compression that layers do not have, is compressed with gzip as kiln's own layers are. `name` is for messages.
    ///
    /// # Errors
    /// It cannot be read or decompressed, or has another diff id than the one given, or `cancel` was raised.
    pub fn take_layer(
        &self,
        name: &str,
        mut reader: impl Read,
        diff_id: Option<Digest>,
        cancel: &Cancel,
    ) -> Result<Layer, StoreError> {
        let mut start = Vec::new();
        let read = reader.by_ref().take(4).read_to_end(&mut start);
        read.at("read", name)?;
        let kept = match start[..] {
            [0x1f, 0x8b, ..] => Some("application/vnd.oci.image.layer.v1.tar+gzip"),
            [0x28, 0xb5, 0x2f, 0xfd] => Some("application/vnd.oci.image.layer.v1.tar+zstd"),
            _ => None,
        };
        let reader = Cancellable { reader: io::Cursor::new(start).chain(reader), cancel };
        let (blob, actual, media_type) = match kept {
            Some(media_type) => {
                let mut tee = Tee { reader, blob: self.blob_writer()?, failed: None };
                let mut hasher = DigestHasher::new();
                let seen = all(&mut tee, name, |bytes| {
                    hasher.update(bytes);
                    Ok(())
                });
                // What follows the compressed bytes belongs to the blob all the same.
                let rest = seen.and_then(|()| Ok(io::copy(&mut tee, &mut io::sink()).at("read", name)?));
                if let Some(error) = tee.failed.take() {
                    return Err(error);
                }
                rest.map_err(|error| interrupted(error, cancel))?;
                (tee.blob, hasher.finish(), media_type)
            }
            None => {
                let compression = Compression::default();
                let packing = self.packing(compression, threads(), None, |packer| {
                    all(reader, name, |bytes| packer.put(bytes)).map_err(|error| interrupted(error, cancel))
                });
                let (Packed { blob, diff_id, .. }, ()) = packing?;
                (blob, diff_id, compression.media_type())
            }
        };
        if let Some(expected) = diff_id.filter(|expected| *expected != actual) {
            return Err(StoreError::DiffIdMismatch { expected, actual });
        }
        let size = blob.size();
        let digest = blob.finish(None)?;
        let (media_type, annotations) = (media_type.to_owned(), Default::default());
        Ok(Layer { media_type, digest, size, diff_id: actual, annotations })
    }

    /// Writes what comes, decompressed, to a file of the store that goes with what is returned. `name` is for messages.
    ///
    /// # Errors
    /// It cannot be read or decompressed, there is no room, or `cancel` was raised.
    pub fn spool(&self, name: &str, reader: impl Read, cancel: &Cancel) -> Result<Spooled, StoreError> {
        let path = self.scratch_path()?;
        let mut file = File::create_new(&path).at("create", &path)?;
        let spooled = Spooled { path };
        let written = all(Cancellable { reader, cancel }, name, |bytes| {
            Ok(file.write_all(bytes).at("write", spooled.path())?)
        });
        written.map_err(|error| interrupted(error, cancel))?;
        Ok(spooled)
    }
}

/// Shows all bytes of what may be compressed, decompressed.
fn all(
    reader: impl Read,
    name: &str,
    mut see: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let wrong = |error| StoreError::Archive { name: name.to_owned(), error };
    let mut source = unpack::Source::new(reader).map_err(wrong)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match source.read(&mut buffer).map_err(wrong)? {
            0 => return Ok(()),
            count => see(&buffer[..count])?,
        }
    }
}

/// A reader that was stopped says so in a text.
fn interrupted(error: StoreError, cancel: &Cancel) -> StoreError {
    if cancel.is_cancelled() { StoreError::Interrupted } else { error }
}

const BUFFER: usize = 256 << 10;

/// Ends when the build does.
struct Cancellable<'a, R> {
    reader: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        self.reader.read(buffer)
    }
}

/// Keeps what is read.
struct Tee<R> {
    reader: R,
    blob: crate::BlobWriter,
    failed: Option<StoreError>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if let Err(error) = self.blob.append(&buffer[..count]) {
            self.failed = Some(error);
            return Err(io::Error::other("the store cannot keep it"));
        }
        Ok(count)
    }
}
