//! Sizes of what never changes: layers and fetched sources. Counted once, when somebody first asks, and kept.
//!
//! A layer's files may have further names in other layers: COPY shares what did not change by hard link. So what is kept
//! are the bytes that are the layer's alone, as an xattr of its directory, and for the rest which inodes they are in: so a
//! sum over any layers counts each file once. Who gives a file of a finished layer another name must say so
//! ([`Store::shares_files`]), as what was the layer's alone is not any more.

use std::io;
use std::path::{Path, PathBuf};

use kiln_core::LayerId;
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};

use crate::disk::{self, Taken};
use crate::store::Store;

/// `<bytes alone> <number of shared files>`, in decimal.
const MARK: &str = "user.kiln.size";
/// The directory of the lists of shared files, beside that of the layers.
pub(crate) const LISTS: &str = "shared";
/// Inode and bytes, little-endian, of each shared file.
const ENTRY: usize = 16;

/// Room that something takes on disk: blocks, as du(1) counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeptSize {
    /// Bytes of directories, and of files that have no name outside.
    pub(crate) alone: u64,
    /// Bytes of files that have, by inode: all of a store are on one file system.
    pub(crate) shared: Vec<(u64, u64)>,
}

impl Store {
    /// Says that files of a finished layer have names in another one now: its kept size is not right any more.
    pub fn shares_files(&self, layer: &LayerId) {
        forget(&self.0.layout.layer(layer));
    }
}

/// Returns what a directory takes that never changes, counting it if nobody did before.
pub(crate) fn of(dir: &Path) -> io::Result<KeptSize> {
    Ok(of_all(std::slice::from_ref(&dir.to_owned()))?.remove(0))
}

/// The same of several directories. Those that nobody counted are, all together, on all of the machine's processors.
pub(crate) fn of_all(dirs: &[PathBuf]) -> io::Result<Vec<KeptSize>> {
    let mut sizes: Vec<Option<KeptSize>> = dirs.iter().map(|dir| read(dir)).collect();
    let missing: Vec<usize> = (0..dirs.len()).filter(|&index| sizes[index].is_none()).collect();
    let roots: Vec<&Path> = missing.iter().map(|&index| dirs[index].as_path()).collect();
    // One needs no thread beside this one, and there are many calls for one.
    let counted = match &roots[..] {
        [] => Vec::new(),
        [one] => vec![disk::count(one)?],
        several => disk::count_all(several)?,
    };
    for (index, taken) in missing.into_iter().zip(counted) {
        let counted = taken.map(KeptSize::from).unwrap_or_default();
        // Kept or not, it is right. Who may only read the store counts each time.
        let _ = keep(&dirs[index], &counted);
        sizes[index] = Some(counted);
    }
    Ok(sizes.into_iter().map(Option::unwrap_or_default).collect())
}

/// Counts a file, or a tree.
pub(crate) fn count(path: &Path) -> io::Result<KeptSize> {
    Ok(disk::count(path)?.map(KeptSize::from).unwrap_or_default())
}

impl From<Taken> for KeptSize {
    fn from(taken: Taken) -> Self {
        let mut size = Self { alone: taken.bytes, shared: Vec::new() };
        for ((_, inode), file) in taken.linked {
            if file.here == file.all {
                size.alone += file.bytes;
            } else {
                size.shared.push((inode, file.bytes));
            }
        }
        size.shared.sort_unstable();
        size
    }
}

/// Forgets what is kept: the next who asks counts.
pub(crate) fn forget(dir: &Path) {
    let _ = removexattr(dir, MARK);
}

/// Takes away the list of a directory that is gone.
pub(crate) fn drop_list(dir: &Path) {
    if let Some(list) = list_of(dir) {
        let _ = std::fs::remove_file(list);
    }
}

fn read(dir: &Path) -> Option<KeptSize> {
    let mut value = [0_u8; 48];
    let length = getxattr(dir, MARK, &mut value).ok()?;
    let text = std::str::from_utf8(&value[..length]).ok()?;
    let (alone, shared) = text.split_once(' ')?;
    let (alone, count) = (alone.parse().ok()?, shared.parse::<usize>().ok()?);
    if count == 0 {
        return Some(KeptSize { alone, shared: Vec::new() });
    }
    let bytes = std::fs::read(list_of(dir)?).ok()?;
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let shared: Vec<(u64, u64)> =
        entries.iter().map(|entry| (number(&entry[..8]), number(&entry[8..]))).collect();
    (rest.is_empty() && shared.len() == count).then_some(KeptSize { alone, shared })
}

/// The mark comes last: a list without one is of no use, and is written anew.
fn keep(dir: &Path, size: &KeptSize) -> io::Result<()> {
    if !size.shared.is_empty()
        && let Some(list) = list_of(dir)
    {
        let bytes: Vec<u8> = size
            .shared
            .iter()
            .flat_map(|(inode, bytes)| [inode.to_le_bytes(), bytes.to_le_bytes()])
            .flatten()
            .collect();
        let new = list.with_extension(format!("{}", std::process::id()));
        if let Some(parent) = list.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&new, bytes)?;
        std::fs::rename(&new, &list)?;
    }
    let text = format!("{} {}", size.alone, size.shared.len());
    Ok(setxattr(dir, MARK, text.as_bytes(), XattrFlags::empty())?)
}

/// `layers/<id>` -> `shared/<id>`: not inside, where it would count as a use of the layer.
fn list_of(dir: &Path) -> Option<PathBuf> {
    Some(dir.parent()?.with_file_name(LISTS).join(dir.file_name()?))
}
