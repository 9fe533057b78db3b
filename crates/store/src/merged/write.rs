//! Changes become a layer in overlay form.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IoError, IoResultExt as _};
use rustix::fs::{AtFlags, CWD, FileType, Mode, linkat, mkdirat, mknodat, openat};

use super::changes::{Change, Changes};
use super::{Bytes, file, interrupted};
use crate::deep::DEEP;
use crate::error::StoreError;
use crate::layer::DIRECTORY;
use crate::tree::FileStat;

/// Writes `changes` of the tree `root` into the empty directory `upper`. Returns which files the tree shares with it now.
pub(super) fn write(
    root: &OwnedFd,
    label: &Path,
    upper: &Path,
    changes: &Changes,
    cancel: &Cancel,
) -> Result<Vec<PathBuf>, StoreError> {
    let to = openat(CWD, upper, DIRECTORY, Mode::empty()).at("open", upper)?;
    let dirs = Some(Dirs { from: root.try_clone().at("open", label)?, to });
    let first = Place { path: PathBuf::new(), dirs };
    let mut writer = Writer { label, upper, open: vec![first], lent: Vec::new(), bytes: Bytes::new() };
    for (path, change) in changes {
        interrupted(cancel)?;
        writer.one(path, change)?;
    }
    writer.close_to(0)?;
    Ok(writer.lent)
}

/// A directory of the tree and the layer's one.
struct Place {
    path: PathBuf,
    /// Closed while the walk is further down than [`DEEP`]; it comes back by `..`.
    dirs: Option<Dirs>,
}

/// Open directories.
struct Dirs {
    from: OwnedFd,
    to: OwnedFd,
}

/// The last one, which is always open.
fn here(open: &[Place]) -> Option<&Dirs> {
    open.last()?.dirs.as_ref()
}

struct Writer<'a> {
    label: &'a Path,
    upper: &'a Path,
    /// From the root to where we are.
    open: Vec<Place>,
    lent: Vec<PathBuf>,
    bytes: Bytes,
}

impl Writer<'_> {
    fn one(&mut self, path: &Path, change: &Change) -> Result<(), StoreError> {
        if *change == Change::Directory {
            return Ok(self.enter(path)?);
        }
        self.enter(path.parent().unwrap_or(Path::new("")))?;
        let Some(Dirs { from, to }) = here(&self.open) else { return Ok(()) };
        let name = file::c_name(path);
        match change {
            Change::Directory => {}
            Change::Gone => mknodat(to, &name, FileType::CharacterDevice, Mode::empty(), 0)
                .at("create whiteout", self.upper.join(path))?,
            Change::File => {
                // A file with several names would be one in the layer, too.
                let alone = FileStat::at(from, &name).at("stat", self.label.join(path))?.nlink == 1;
                if alone && file::link(from, to, &name).at("link", self.upper.join(path))? {
                    self.lent.push(path.to_owned());
                } else {
                    file::copy(from, &name, to, &name, &mut self.bytes).at("copy", self.upper.join(path))?;
                }
            }
            Change::Link(first) => {
                let Some(Dirs { to: root, .. }) = here(&self.open[..1]) else { return Ok(()) };
                linkat(root, first, to, &name, AtFlags::empty()).at("link", self.upper.join(path))?;
            }
        }
        Ok(())
    }

    /// Goes to a directory, making what is missing on the way: a layer has every directory above what it changes.
    fn enter(&mut self, path: &Path) -> Result<(), IoError> {
        while let Some(here) = self.open.last()
            && !path.starts_with(&here.path)
        {
            self.close_to(self.open.len() - 1)?;
        }
        let known = self.open.last().map_or_else(PathBuf::new, |here| here.path.clone());
        let mut at = known.clone();
        for part in path.strip_prefix(&known).unwrap_or(path) {
            at.push(part);
            let name = file::c_name(&at);
            let Some(above) = here(&self.open) else { return Ok(()) };
            mkdirat(&above.to, &name, Mode::RWXU).at("make", self.upper.join(&at))?;
            let to = openat(&above.to, &name, DIRECTORY, Mode::empty()).at("open", self.upper.join(&at))?;
            let from =
                openat(&above.from, &name, DIRECTORY, Mode::empty()).at("open", self.label.join(&at))?;
            if self.open.len() > DEEP
                && let Some(above) = self.open.last_mut()
            {
                above.dirs = None;
            }
            self.open.push(Place { path: at.clone(), dirs: Some(Dirs { from, to }) });
        }
        Ok(())
    }

    /// Leaves directories, and gives them their metadata: nothing more is made in them.
    fn close_to(&mut self, depth: usize) -> Result<(), IoError> {
        while self.open.len() > depth {
            let Some(Place { path, dirs: Some(Dirs { from, to }) }) = self.open.pop() else { break };
            let finish = || file::copy_attributes(&from, &FileStat::of(&from)?, &to, false);
            finish().at("set attributes of", self.upper.join(&path))?;
            if let Some(above @ Place { dirs: None, .. }) = self.open.last_mut() {
                let up = |dir: &OwnedFd| openat(dir, c"..", DIRECTORY, Mode::empty()).at("open", &above.path);
                above.dirs = Some(Dirs { from: up(&from)?, to: up(&to)? });
            }
        }
        Ok(())
    }
}
