//! What a layer says, path by path: for reports. Read from its directory; [`unpack::list`](crate::unpack::list) reads the same
//! from its blob.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{IoResultExt as _, LayerId};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, openat, statat};

use super::{DIRECTORY, is_opaque, is_whiteout};
use crate::error::StoreError;
use crate::layout::TREE;
use crate::store::Store;
use crate::tree::selected::open_dir;

/// What a layer says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
    },
    /// Another name of a file that the layer said before.
    HardLink {
        /// That file's path.
        target: Vec<u8>,
    },
    /// A link, a device, a fifo.
    Other,
    /// What lower layers have here is gone.
    Deleted,
    /// What lower layers have in this directory is gone.
    Opaque,
}

impl Store {
    /// Shows what a layer says, by its directory. Paths have no slash at either end; what the layer says of the root is left
    /// out. They are sorted as in the tars that kiln packs: by name in each directory, and it before what is in it.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn list_layer(&self, layer: &LayerId, see: &mut dyn FnMut(&[u8], Said)) -> Result<(), StoreError> {
        let tree = self.0.layout.layer(layer).join(TREE);
        let root = openat(CWD, &tree, DIRECTORY, Mode::empty()).at("open", &tree)?;
        // Files with several names, by inode: with the first of them.
        let mut first: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut dir = open_dir(root.as_fd(), Path::new("")).at("open", &tree)?;
        let mut way = vec![(PathBuf::new(), names(&dir).at("read", &tree)?)];
        while let Some((inside, names_left)) = way.last_mut() {
            let Some(name) = names_left.pop() else {
                way.pop();
                if let Some((above, _)) = way.last() {
                    // Opened anew: directories may be deeper than descriptors go.
                    dir = open_dir(root.as_fd(), above).at("open", tree.join(above))?;
                }
                continue;
            };
            let path = inside.join(&name);
            let bytes = path.as_os_str().as_bytes();
            let stat = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).at("stat", tree.join(&path))?;
            match FileType::from_raw_mode(stat.st_mode) {
                _ if is_whiteout(&stat) => see(bytes, Said::Deleted),
                FileType::Directory => {
                    see(bytes, Said::Directory);
                    dir = open_dir(root.as_fd(), &path).at("open", tree.join(&path))?;
                    if is_opaque(&dir).at("read xattrs of", tree.join(&path))? {
                        see(bytes, Said::Opaque);
                    }
                    let names = names(&dir).at("read", tree.join(&path))?;
                    way.push((path, names));
                }
                FileType::RegularFile => match first.get(&stat.st_ino) {
                    Some(target) => see(bytes, Said::HardLink { target: target.clone() }),
                    None => {
                        if stat.st_nlink > 1 {
                            first.insert(stat.st_ino, bytes.to_vec());
                        }
                        see(bytes, Said::File { size: u64::try_from(stat.st_size).unwrap_or(0) });
                    }
                },
                _ => see(bytes, Said::Other),
            }
        }
        Ok(())
    }
}

/// The names in a directory, the last first.
fn names(dir: &OwnedFd) -> std::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}
