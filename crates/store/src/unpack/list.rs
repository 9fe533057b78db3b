//! What a layer says, path by path, by its blob: nothing is written.

use std::io::Read;

use kiln_core::{DigestHasher, Layer};

use super::entry::Kind;
use super::tree::{clean, split};
use super::{UnpackOptions, stream};
use crate::error::{ArchiveError, StoreError};
use crate::layer::list::Said;
use crate::store::Store;

impl Store {
    /// Shows what a layer says, by the bytes of its blob. Paths are as [`list_layer`](Self::list_layer) has them, in the
    /// order of the tar.
    ///
    /// # Errors
    /// The bytes cannot be read or decompressed, the tar is damaged, or it is not the one of the layer's diff id. What was shown
    /// until then is worth nothing.
    pub fn list_blob(
        &self,
        layer: &Layer,
        reader: impl Read,
        see: &mut (dyn FnMut(&[u8], Said) + Send),
    ) -> Result<(), StoreError> {
        let mut hasher = DigestHasher::new();
        let read = stream(
            reader,
            &UnpackOptions::default(),
            |bytes| hasher.update(bytes),
            |entries| {
                while let Some(entry) = entries.next_entry()? {
                    let path = clean(&entry.name).map_err(|problem| entries.bad(problem))?;
                    let (dir, name) = split(&path);
                    let join =
                        |name: &[u8]| if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() };
                    match name.strip_prefix(b".wh.") {
                        // The root, of which nothing is to be said.
                        _ if path.is_empty() => {}
                        Some(b".wh..opq") => see(dir, Said::Opaque),
                        // Aufs's own files.
                        Some(hidden) if hidden.starts_with(b".wh.") => {}
                        Some(hidden) => see(&join(hidden), Said::Deleted),
                        None => {
                            let said = match &entry.kind {
                                Kind::Directory => Said::Directory,
                                Kind::File => Said::File { size: entry.size },
                                Kind::HardLink(target) => Said::HardLink {
                                    target: clean(target).map_err(|problem| entries.bad(problem))?,
                                },
                                Kind::Symlink(_) | Kind::Char(..) | Kind::Block(..) | Kind::Fifo => {
                                    Said::Other
                                }
                            };
                            see(&path, said);
                        }
                    }
                }
                entries.drain()
            },
        );
        read.map_err(|error: ArchiveError| error.of_layer(layer.diff_id))?;
        match hasher.finish() {
            actual if actual == layer.diff_id => Ok(()),
            actual => Err(StoreError::DiffIdMismatch { expected: layer.diff_id, actual }),
        }
    }
}
