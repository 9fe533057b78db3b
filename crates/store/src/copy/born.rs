//! What a file has when it is made, learned from the first of its kind in a directory: so that what is right already is
//! not set, and not even asked for, again for each of the others.

use std::cell::RefCell;
use std::fs::File;

use rustix::fs::{Mode, Stat, fchmod, fstat};

use crate::layout::Ids;
use crate::owner;

/// New files of one directory, made by this process.
#[derive(Debug, Default)]
pub(super) struct Born {
    /// What was asked for, and what came of it: the umask, a default ACL and a directory's set-group-id bit have a say, and
    /// are the same for all files here.
    seen: RefCell<Vec<(u32, Stat)>>,
}

impl Born {
    /// Returns what to make a file with that shall have this mode. Set-id bits would be lost when it gets its owner.
    pub(super) fn mode(wanted: u32) -> Mode {
        Mode::from_raw_mode(wanted & 0o777)
    }

    /// Gives a file, made with [`mode`](Self::mode) of `wanted`, its owner.
    pub(super) fn own(
        &self,
        ids: Ids,
        file: &File,
        wanted: u32,
        (uid, gid): (u32, u32),
    ) -> std::io::Result<()> {
        let stat = self.stat(file, wanted)?;
        if (stat.st_uid, stat.st_gid) == (uid, gid) { Ok(()) } else { owner::set(ids, file, &stat, uid, gid) }
    }

    /// Gives such a file its mode; after its owner.
    pub(super) fn allow(&self, file: &File, wanted: u32) -> rustix::io::Result<()> {
        if self.stat(file, wanted)?.st_mode & 0o7777 == wanted {
            return Ok(());
        }
        fchmod(file, Mode::from_raw_mode(wanted))
    }

    fn stat(&self, file: &File, wanted: u32) -> rustix::io::Result<Stat> {
        let asked = Self::mode(wanted).as_raw_mode();
        if let Some((_, stat)) = self.seen.borrow().iter().find(|(mode, _)| *mode == asked) {
            return Ok(*stat);
        }
        let stat = fstat(file)?;
        self.seen.borrow_mut().push((asked, stat));
        Ok(stat)
    }
}
