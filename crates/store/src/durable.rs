//! What survives power loss, without an fsync while a build runs.
//!
//! Blobs and layers appear by rename and are trusted for as long as the machine stays up. At the end of a build one
//! syncfs(2) writes everything out, and only then each new thing gets a mark (an xattr). A mark that is seen was
//! therefore set after its thing was safe, on any file system, whatever order it writes in. The first open after a
//! reboot looks at what has no mark: a blob is hashed again and stays if it is whole, a fetched source goes, a layer goes,
//! with the records that name it. Records need no mark: they are JSON, and one that does not parse counts as missing.
//!
//! The file `pending` lists what has no mark yet, for all processes. It is a hint: what is lost from it only stays
//! unmarked.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_core::{Digest, DigestHasher, IoError, IoResultExt as _, LayerId};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::collect::kept_size;
use crate::error::StoreError;
use crate::layer::kept;
use crate::layout::{self, Ids, Layout};
use crate::lock::{FileLock, Hold};
use crate::probe::{self, Shown};
use crate::store::Store;
use crate::{partial, record, scratch};

const MARK: &str = "user.kiln.synced";
const BOOT_FILE: &str = "boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Whether this process made anything since it last synced.
#[derive(Debug, Default)]
pub(crate) struct Unsynced(AtomicBool);

impl Store {
    /// Makes what this process (and whoever died before) made survive power loss. Costs nothing if nothing was made.
    ///
    /// # Errors
    /// The file system could not write everything out; then nothing is marked.
    pub fn finish_build(&self) -> Result<(), StoreError> {
        if !self.0.unsynced.0.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // Taken away before it is read: what others note from now on waits for the next sync.
        let (list, mine) = (self.0.layout.at(layout::PENDING), self.scratch_path()?);
        match std::fs::rename(&list, &mine) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).at("rename", list)?,
        }
        let text = std::fs::read_to_string(&mine).at("read", &mine)?;
        sync(self.root())?;
        for line in text.lines() {
            mark(&self.root().join(line))?;
        }
        Ok(std::fs::remove_file(&mine).at("remove", mine)?)
    }

    /// Moves a finished blob, layer or source to its place, and notes that it is not synced yet.
    pub(crate) fn publish(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        std::fs::rename(from, to).at("rename to", to)?;
        let list = self.0.layout.at(layout::PENDING);
        let below = to.strip_prefix(self.root()).unwrap_or(to);
        let mut file = OpenOptions::new().append(true).create(true).open(&list).at("open", &list)?;
        file.write_all(format!("{}\n", below.display()).as_bytes()).at("write", list)?;
        self.0.unsynced.0.store(true, Ordering::Release);
        Ok(())
    }
}

/// Once after each reboot, and in a copy without attributes: removes or checks what is not marked.
///
/// # Errors
/// As [`probe::look`] has them; something cannot be looked at or removed.
pub(crate) fn recover(layout: &Layout) -> Result<(), StoreError> {
    let boot = boot_id()?;
    let file = layout.at(BOOT_FILE);
    let known = || std::fs::read_to_string(&file).is_ok_and(|known| known == boot);
    let shown = probe::look(layout)?;
    if known() && shown == Shown::Same {
        return Ok(());
    }
    let lock = FileLock::wait(&layout.at(layout::LOCKS).join("recover"), Hold::Exclusive)?;
    // Somebody else may have done it meanwhile.
    let shown = probe::look(layout)?;
    if !known() || shown == Shown::Bare {
        check_blobs(layout)?;
        drop_sources(layout)?;
        partial::recover(layout)?;
        let gone = drop_layers(layout)?;
        record::forget(layout, &gone)?;
        kept::forget(layout, &gone)?;
        let _ = std::fs::remove_file(layout.at(layout::PENDING));
        std::fs::write(&file, &boot).at("write", &file)?;
    }
    if shown != Shown::Same {
        probe::settle(layout)?;
    }
    lock.remove();
    Ok(())
}

/// Names this boot of this machine: <https://man7.org/linux/man-pages/man4/random.4.html>.
fn boot_id() -> Result<String, IoError> {
    Ok(std::fs::read_to_string(BOOT_ID).at("read", BOOT_ID)?.trim().to_owned())
}

fn sync(root: &Path) -> Result<(), IoError> {
    let dir = File::open(root).at("open", root)?;
    rustix::fs::syncfs(&dir).at("sync the file system of", root)
}

fn mark(path: &Path) -> Result<(), IoError> {
    match setxattr(path, MARK, b"", XattrFlags::empty()) {
        // Collected in the meantime.
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("mark", path),
    }
}

fn is_marked(path: &Path) -> Result<bool, IoError> {
    match getxattr(path, MARK, &mut [0_u8; 1]) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error).at("read mark of", path),
    }
}

fn check_blobs(layout: &Layout) -> Result<(), StoreError> {
    for path in children(&layout.at(layout::BLOBS))? {
        if is_marked(&path)? {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if format!("sha256:{name}").parse::<Digest>().ok() != Some(digest_of(&path)?) {
            std::fs::remove_file(&path).at("remove", path)?;
        }
    }
    Ok(())
}

/// Removes unmarked sources: a file can be hashed, but a checkout cannot, and both can be had again. Who reads a record that
/// names one looks whether it is there.
fn drop_sources(layout: &Layout) -> Result<(), StoreError> {
    for path in children(&layout.at(layout::SOURCES))? {
        if !is_marked(&path)? {
            scratch::remove_tree(&path);
        }
    }
    Ok(())
}

/// Removes unmarked layers of both kinds; returns their names.
fn drop_layers(layout: &Layout) -> Result<BTreeSet<LayerId>, StoreError> {
    let mut gone = BTreeSet::new();
    for ids in [Ids::Full, Ids::Single] {
        for path in children(&layout.at(ids.dir()).join(layout::LAYERS))? {
            if !is_marked(&path)? {
                gone.insert(LayerId(path.file_name().unwrap_or_default().to_string_lossy().into_owned()));
                kept_size::drop_list(&path);
                scratch::remove_tree(&path);
            }
        }
    }
    Ok(gone)
}

/// Hashes a file as it is.
pub(crate) fn digest_of(path: &Path) -> Result<Digest, IoError> {
    let mut file = File::open(path).at("open", path)?;
    let mut hasher = DigestHasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).at("read", path)? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Paths in a directory; none if it is not there.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>, IoError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("read", dir),
    };
    entries.map(|entry| Ok(entry.at("read", dir)?.path())).collect()
}
