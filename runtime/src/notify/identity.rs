//! getuid(2), setuid(2) and their kin, answered from the sets of credentials.

use rustix::io::Errno;

use super::calls::Call;
use super::credentials::{Change, Credentials, Ids};
use super::layout;
use super::place::errno;
use super::{Answerer, id, int, word};
use crate::sys::notify::{self as sys, Answer, Notification};

/// NGROUPS_MAX.
const MOST_GROUPS: u32 = 65_536;

impl Answerer {
    pub(super) fn identity(
        &mut self,
        call: &Notification,
        kind: Call,
        narrow: bool,
    ) -> Result<Answer, Errno> {
        let [a, b, c, d, ..] = call.arguments;
        let one = |argument| id(argument, narrow);
        let change = match kind {
            Call::Get { kind, effective } => {
                let Ids { real, effective: euid, .. } = self.sets.of(call.tid).map_err(errno)?.ids(kind);
                return Ok(shown(if effective { euid } else { real }, narrow));
            }
            Call::GetThree(kind) => {
                let ids = self.sets.of(call.tid).map_err(errno)?.ids(kind);
                self.check(call)?;
                for (to, id) in [(a, ids.real), (b, ids.effective), (c, ids.saved)] {
                    write_ids(call.tid, to, &[id], narrow)?;
                }
                return Ok(Answer::Value(0));
            }
            Call::GetGroups => return self.get_groups(call, narrow),
            Call::GetLimit { unlimited, width } => {
                let value = unlimited.to_ne_bytes();
                self.check(call)?;
                let both = [&value[..width], &value[..width]].concat();
                sys::write_memory(call.tid, b, &both).map_err(errno)?;
                return Ok(Answer::Value(0));
            }
            Call::SetLimit => return Ok(Answer::Value(0)),
            Call::Prlimit => {
                if d != 0 {
                    self.check(call)?;
                    sys::write_memory(call.tid, d, &[0xff; 16]).map_err(errno)?;
                }
                return Ok(Answer::Value(0));
            }
            Call::Keep => Change::Keep(b != 0),
            Call::SetOne(kind) => Change::One(kind, one(a)),
            Call::SetTwo(kind) => Change::Two(kind, [one(a), one(b)]),
            Call::SetThree(kind) => Change::Three(kind, [one(a), one(b), one(c)]),
            Call::SetFiles(kind) => Change::Files(kind, one(a)),
            Call::SetGroups if word(a) > MOST_GROUPS => return Err(Errno::INVAL),
            Call::SetGroups => Change::Groups(read_ids(call.tid, b, word(a) as usize, narrow)?),
            _ => return Ok(Answer::Continue),
        };
        let old = self.sets.of(call.tid).map_err(errno)?;
        let value = match &change {
            // These two return what was, whatever becomes of it.
            Change::Files(kind, _) => shown(old.ids(*kind).files, narrow),
            // The kernel wants to know, too.
            Change::Keep(_) => Answer::Continue,
            _ => Answer::Value(0),
        };
        let new = old.changed(change)?;
        self.become_(call, &old, &new)?;
        Ok(value)
    }

    /// Gives the caller new credentials.
    pub(super) fn become_(
        &mut self,
        call: &Notification,
        old: &Credentials,
        new: &Credentials,
    ) -> Result<(), Errno> {
        if old == new {
            return Ok(());
        }
        self.check(call)?;
        self.sets.set(call.tid, new).map_err(errno)
    }

    fn get_groups(&self, call: &Notification, narrow: bool) -> Result<Answer, Errno> {
        let [room, to, ..] = call.arguments;
        let groups = self.sets.of(call.tid).map_err(errno)?.groups;
        let (room, count) = (int(room), groups.len());
        match usize::try_from(room) {
            Err(_) => return Err(Errno::INVAL),
            Ok(0) => {}
            Ok(room) if room < count => return Err(Errno::INVAL),
            Ok(_) => {
                self.check(call)?;
                write_ids(call.tid, to, &groups, narrow)?;
            }
        }
        Ok(Answer::Value(i64::try_from(count).unwrap_or(0)))
    }
}

fn shown(id: u32, narrow: bool) -> Answer {
    Answer::Value(i64::from(if narrow { layout::narrow(id) } else { id }))
}

fn write_ids(tid: u32, to: u64, ids: &[u32], narrow: bool) -> Result<(), Errno> {
    let bytes: Vec<u8> = if narrow {
        let halves = ids.iter().map(|&id| (layout::narrow(id) & 0xffff) as u16);
        halves.flat_map(u16::to_ne_bytes).collect()
    } else {
        ids.iter().flat_map(|id| id.to_ne_bytes()).collect()
    };
    if bytes.is_empty() {
        return Ok(());
    }
    sys::write_memory(tid, to, &bytes).map_err(errno)
}

fn read_ids(tid: u32, from: u64, count: usize, narrow: bool) -> Result<Vec<u32>, Errno> {
    let width = if narrow { 2 } else { 4 };
    let mut bytes = vec![0; count * width];
    if !bytes.is_empty() && sys::read_memory(tid, from, &mut bytes).map_err(errno)? < bytes.len() {
        return Err(Errno::FAULT);
    }
    let ids = bytes.chunks_exact(width).map(|chunk| match *chunk {
        [a, b] => id(u16::from_ne_bytes([a, b]).into(), true),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => 0,
    });
    Ok(ids.collect())
}
