//! An archive that is begun while its layers are packed: what becomes the store's blob goes to its place in the archive at once,
//! instead of being read and written again when all is packed (docs/decisions/0036).
//!
//! Where a layer will lie follows from the sizes of those below it. That is a guess: a layer that is elsewhere in the end, or
//! was packed before, is copied there from the store as if nothing had been begun.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_core::{Digest, IoResultExt as _, Layer};
use kiln_oci::{ARCHIVE_HEAD, ArchiveWriter, BlobSource, Root, archive_entry};
use kiln_store::{LayerOptions, Twin};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};

use super::build::Build;
use super::finished::layer_options;
use super::to_file::{for_everybody, target};
use crate::Error;
use crate::request::Output;

/// A file without a name: it goes with whoever ends before the archive is whole.
pub(super) struct Ahead {
    file: Arc<File>,
    dest: PathBuf,
    /// How the archive's layers are packed.
    way: LayerOptions,
    layers: Mutex<Layers>,
}

/// What is where.
struct Layers {
    /// Where the next one's header begins.
    next: u64,
    there: Vec<(Digest, u64, u64)>,
}

impl Build<'_> {
    /// Begins the first archive that is asked for, where that is possible.
    pub(super) fn begin_archive(&self) -> Option<Ahead> {
        let [planned] = &self.plan.images[..] else { return None };
        let (dest, form) = self.request.outputs.iter().find_map(|output| match output {
            Output::Oci { dest: Some(dest), tar: true, form } | Output::Docker { dest: Some(dest), form } => {
                Some((dest, form))
            }
            _ => None,
        })?;
        // Sizes of a base's layers are not known if they are to be packed again.
        if form.force_compression {
            return None;
        }
        let base = self.base_of(planned);
        let below = base.iter().flat_map(|base| &base.image.layers).map(|layer| layer.size);
        Ahead::begin(dest, layer_options(form, self.epoch), below)
    }

    /// Ends the archive that was begun, if it is this one. Returns whether it was.
    pub(super) fn finish_archive(
        &self,
        dest: Option<&Path>,
        roots: &[Root<'_>],
        blobs: &dyn BlobSource,
        docker: bool,
    ) -> Result<bool, Error> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let is_for = dest.is_some_and(|dest| ahead.as_ref().is_some_and(|ahead| ahead.is_for(dest)));
        match ahead.take_if(|_| is_for) {
            Some(ahead) => ahead.finish(|out| Ok(kiln_oci::write_archive_into(out, roots, blobs, docker)?)),
            None => Ok(false),
        }
    }
}

impl Ahead {
    fn begin(dest: &Path, way: LayerOptions, below: impl Iterator<Item = u64>) -> Option<Self> {
        let dest = target(dest).ok()??;
        let dir = dest.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = Arc::new(File::from(open(dir, flags, Mode::RUSR | Mode::WUSR).ok()?));
        let next = below.fold(ARCHIVE_HEAD, |at, size| at.saturating_add(archive_entry(size)));
        Some(Self { file, dest, way, layers: Mutex::new(Layers { next, there: Vec::new() }) })
    }

    /// Whether it becomes this file.
    pub(super) fn is_for(&self, dest: &Path) -> bool {
        target(dest).is_ok_and(|target| target.as_deref() == Some(&self.dest))
    }

    /// Returns where a layer that is packed now goes as well.
    pub(super) fn twin(&self, way: &LayerOptions) -> Option<Twin> {
        let at = self.layers.lock().unwrap_or_else(PoisonError::into_inner).next;
        (*way == self.way).then(|| Twin::new(Arc::clone(&self.file), at + archive_entry(0)))
    }

    /// Takes note of what that layer became.
    pub(super) fn packed(&self, twin: &Twin, blob: &Layer) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if twin.written() == blob.size {
            layers.there.push((blob.digest, blob.size, twin.at()));
        }
        layers.next = layers.next.saturating_add(archive_entry(blob.size));
    }

    /// Writes what is missing and gives it its name. Returns whether it has one: else all is to be done in the usual way.
    pub(super) fn finish(
        self,
        write: impl FnOnce(&mut dyn ArchiveWriter) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let Self { file, dest, layers, .. } = self;
        let there = layers.into_inner().unwrap_or_else(PoisonError::into_inner).there;
        let mut out = Over { out: BufWriter::with_capacity(256 * 1024, &file), at: 0, there: &there };
        write(&mut out)?;
        out.flush().at("write", &dest)?;
        // What was guessed wrong may be behind.
        file.set_len(out.at).at("write", &dest)?;
        for_everybody(&file, &dest)?;
        let dir = dest.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // openat(2), O_TMPFILE: how a file without a name gets one. It does not replace another.
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |path: &Path| Ok(linkat(CWD, &unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?);
        let Ok(named) = tempfile::Builder::new().prefix(".kiln-").make_in(dir, link) else {
            return Ok(false);
        };
        named.into_temp_path().persist(&dest).map_err(|error| error.error).at("create", &dest)?;
        Ok(true)
    }
}

/// Writes from the start on, and steps over what is there.
struct Over<'a> {
    out: BufWriter<&'a File>,
    at: u64,
    there: &'a [(Digest, u64, u64)],
}

impl Write for Over<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl ArchiveWriter for Over<'_> {
    fn has(&mut self, digest: &Digest, size: u64) -> io::Result<bool> {
        let is_there = self.there.contains(&(*digest, size, self.at));
        if is_there {
            self.out.flush()?;
            self.at += size;
            self.out.get_mut().seek(SeekFrom::Start(self.at))?;
        }
        Ok(is_there)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn layer(content: &[u8]) -> Layer {
        let digest = Digest::of(content);
        let size = content.len() as u64;
        Layer { media_type: String::new(), digest, size, diff_id: digest, annotations: Default::default() }
    }

    #[test]
    fn what_is_there_is_stepped_over_and_what_was_guessed_wrong_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("image.tar");
        let way = LayerOptions::default();
        let ahead = Ahead::begin(&dest, way, [700].into_iter()).expect("a file system with O_TMPFILE");
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "it has no name");
        let at = ARCHIVE_HEAD + 512 + 1024 + 512;
        assert_eq!(ahead.twin(&way).unwrap().at(), at);
        ahead.file.write_all_at(b"content", at).unwrap();
        ahead.file.write_all_at(&[1; 9000], 1 << 20).unwrap();
        let (right, wrong) = (layer(b"content"), layer(b"elsewhere"));
        let there = vec![(right.digest, 7, at), (wrong.digest, 9, at)];
        ahead.layers.lock().unwrap().there = there;
        let whole = ahead.finish(|out| {
            out.write_all(&vec![2; at as usize]).unwrap();
            assert!(!out.has(&right.digest, 8).unwrap(), "another size");
            assert!(out.has(&right.digest, 7).unwrap());
            assert!(!out.has(&wrong.digest, 9).unwrap(), "another place");
            out.write_all(b" and more").unwrap();
            Ok(())
        });
        assert!(whole.unwrap());
        let expected = [&vec![2; at as usize][..], b"content and more"].concat();
        assert!(std::fs::read(&dest).unwrap() == expected, "nothing of what was behind is left");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_blob_that_was_not_packed_here_only_takes_its_room() {
        let dir = tempfile::tempdir().unwrap();
        let way = LayerOptions::default();
        let ahead = Ahead::begin(&dir.path().join("image.tar"), way, std::iter::empty()).unwrap();
        let twin = ahead.twin(&way).unwrap();
        ahead.packed(&twin, &layer(b"content"));
        assert!(ahead.layers.lock().unwrap().there.is_empty());
        assert_eq!(ahead.twin(&way).unwrap().at(), twin.at() + 1024);
        let other = LayerOptions { epoch: Some(1), ..way };
        assert!(ahead.twin(&other).is_none(), "packed another way it is no part of the archive");
        assert!(Ahead::begin(Path::new("/dev/null"), way, std::iter::empty()).is_none(), "no file");
    }
}
