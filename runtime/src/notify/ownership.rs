//! chown(2): the kernel does what it can, the rest is recorded.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use super::credentials::NONE;
use super::layout::Status;
use super::place::{EMPTY, errno};
use super::{Answerer, links, owners};
use crate::sys::notify::{Answer, Notification};

impl Answerer {
    /// Gives the file at `place` to `uid` and `gid`; -1 leaves one as it is.
    pub(super) fn chown(
        &mut self,
        call: &Notification,
        follow: bool,
        uid: u32,
        gid: u32,
    ) -> Result<Answer, Errno> {
        let credentials = self.sets.of(call.tid).map_err(errno)?;
        let plain = |id: u32| id == 0 || id == NONE;
        // What is root's and becomes root's.
        if credentials.owns_all_files() && plain(uid) && plain(gid) && !self.may_differ(follow)? {
            return Ok(Answer::Continue);
        }
        let file = self.place.open(follow)?;
        self.check(call)?;
        let status = Status::of(&file)?;
        let was = owners::shown(&file, &status, &self.table);
        let wanted = |id: u32| (id != NONE).then_some(id);
        let (uid, gid) = (wanted(uid), wanted(gid));
        if !credentials.may_give(was.owner, uid, gid) {
            return Err(Errno::PERM);
        }
        // Takes set-id bits and capabilities away, sets the time, copies the file up, and says where that is forbidden.
        let (user, group) = (uid.map(|_| Uid::ROOT), gid.map(|_| Gid::ROOT));
        rustix::fs::chownat(&file, c"", user, group, EMPTY)?;
        let owner = (uid.unwrap_or(was.owner.0), gid.unwrap_or(was.owner.1));
        let is_ours = self.mounts(call.tid)?.contains(&status.mount());
        owners::give(&file, &status, &was, owner, &mut self.table, is_ours)?;
        // What a process with a root of its own calls a file is no path in the layer.
        if !owners::can_hold(&status) && !self.has_roots {
            links::note_copy(&mut self.table, &file, &self.upper, &status, owner);
        }
        Ok(Answer::Value(0))
    }
}
