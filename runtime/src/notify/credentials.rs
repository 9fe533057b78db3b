//! A process's ids as it believes them to be, and what the kernel's rules make of them: credentials(7), setresuid(2).

use std::sync::Arc;

use rustix::io::Errno;

#[cfg(test)]
mod tests;

/// "Leave it as it is" where ids are set; no id.
pub(crate) const NONE: u32 = u32::MAX;

/// Most groups a process may have: NGROUPS_MAX.
const MOST_GROUPS: usize = 65_536;

/// The four ids of a user or of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ids {
    pub(crate) real: u32,
    pub(crate) effective: u32,
    pub(crate) saved: u32,
    /// For files: follows the effective one.
    pub(crate) files: u32,
}

/// All of a process's; the default is root's, without groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    pub(crate) user: Ids,
    pub(crate) group: Ids,
    /// Supplementary groups, sorted as the kernel sorts them.
    pub(crate) groups: Arc<[u32]>,
    /// Whether it has asked to keep its capabilities (PR_SET_KEEPCAPS of prctl(2)) when it gives up the id 0.
    pub(crate) keeps: bool,
    /// Whether it has, and so may change ids without being root.
    pub(crate) capable: bool,
}

impl Ids {
    /// setuid(2), setgid(2).
    fn set(self, id: u32, privileged: bool) -> Result<Self, Errno> {
        match id {
            NONE => Err(Errno::INVAL),
            _ if privileged => Ok(Self { real: id, effective: id, saved: id, files: id }),
            _ if id == self.real || id == self.saved => Ok(Self { effective: id, files: id, ..self }),
            _ => Err(Errno::PERM),
        }
    }

    /// setreuid(2), setregid(2).
    fn set_both(self, real: u32, effective: u32, privileged: bool) -> Result<Self, Errno> {
        let mut new = self;
        if real != NONE {
            if !privileged && real != self.real && real != self.effective {
                return Err(Errno::PERM);
            }
            new.real = real;
        }
        if effective != NONE {
            if !privileged && !self.has(effective) {
                return Err(Errno::PERM);
            }
            new.effective = effective;
        }
        if real != NONE || (effective != NONE && effective != self.real) {
            new.saved = new.effective;
        }
        new.files = new.effective;
        Ok(new)
    }

    /// setresuid(2), setresgid(2).
    fn set_three(self, wanted: [u32; 3], privileged: bool) -> Result<Self, Errno> {
        let [real, effective, saved] = wanted;
        let same = |id: u32, old: u32| id == NONE || id == old;
        let unchanged = same(real, self.real)
            && (effective == NONE || (effective == self.effective && effective == self.files))
            && same(saved, self.saved);
        if unchanged {
            return Ok(self);
        }
        if !privileged && wanted.iter().any(|&id| id != NONE && !self.has(id)) {
            return Err(Errno::PERM);
        }
        let pick = |id: u32, old: u32| if id == NONE { old } else { id };
        let effective = pick(effective, self.effective);
        Ok(Self { real: pick(real, self.real), effective, saved: pick(saved, self.saved), files: effective })
    }

    /// setfsuid(2), setfsgid(2): what is not allowed changes nothing.
    fn set_files(self, id: u32, privileged: bool) -> Self {
        let allowed = id != NONE && (privileged || self.has(id) || id == self.files);
        if allowed { Self { files: id, ..self } } else { self }
    }

    /// execve(2), of a file that gives `effective`.
    fn executed(self, effective: u32) -> Self {
        Self { effective, saved: effective, files: effective, ..self }
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }
}

/// A change, with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// One id; of the user or of the group.
    One(Kind, u32),
    /// Real and effective.
    Two(Kind, [u32; 2]),
    /// Real, effective, saved.
    Three(Kind, [u32; 3]),
    /// That for files.
    Files(Kind, u32),
    Groups(Vec<u32>),
    /// PR_SET_KEEPCAPS.
    Keep(bool),
}

/// Whose ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Group,
}

impl Credentials {
    pub(crate) fn ids(&self, kind: Kind) -> Ids {
        match kind {
            Kind::User => self.user,
            Kind::Group => self.group,
        }
    }

    /// Returns what a change makes of them. Who has the effective id 0 has the right to any: the capabilities come and go
    /// with that id. Who keeps them over a change of its user is taken to make them effective again at once.
    pub(crate) fn changed(&self, change: Change) -> Result<Self, Errno> {
        let privileged = self.user.effective == 0 || self.capable;
        let (kind, ids) = match change {
            Change::One(kind, id) => (kind, self.ids(kind).set(id, privileged)?),
            Change::Two(kind, [real, effective]) => {
                (kind, self.ids(kind).set_both(real, effective, privileged)?)
            }
            Change::Three(kind, ids) => (kind, self.ids(kind).set_three(ids, privileged)?),
            Change::Files(kind, id) => (kind, self.ids(kind).set_files(id, privileged)),
            Change::Keep(keeps) => return Ok(Self { keeps, ..self.clone() }),
            Change::Groups(_) if !privileged => return Err(Errno::PERM),
            Change::Groups(groups) if groups.len() > MOST_GROUPS || groups.contains(&NONE) => {
                return Err(Errno::INVAL);
            }
            Change::Groups(mut groups) => {
                groups.sort_unstable();
                return Ok(Self { groups: groups.into(), ..self.clone() });
            }
        };
        Ok(match kind {
            Kind::User => {
                let gives_up = self.user.has(0) && !ids.has(0);
                let capable = if gives_up { self.keeps } else { self.capable };
                Self { user: ids, capable, ..self.clone() }
            }
            Kind::Group => Self { group: ids, ..self.clone() },
        })
    }

    /// Returns what executing a file makes of them, which may give a user or a group.
    pub(crate) fn executed(&self, user: Option<u32>, group: Option<u32>) -> Self {
        Self {
            user: self.user.executed(user.unwrap_or(self.user.effective)),
            group: self.group.executed(group.unwrap_or(self.group.effective)),
            groups: Arc::clone(&self.groups),
            keeps: false,
            capable: false,
        }
    }

    /// Whether it may give files away (CAP_CHOWN) and make devices (CAP_MKNOD): these rights go by the id for files.
    pub(crate) fn owns_all_files(&self) -> bool {
        self.user.files == 0
    }

    /// Whether it may make something in a directory of `owner`'s with this mode.
    pub(crate) fn may_write(&self, owner: (u32, u32), mode: u32) -> bool {
        const WRITE_AND_SEARCH: u32 = 0o3;
        let class = if self.user.files == owner.0 {
            mode >> 6
        } else if self.in_group(owner.1) {
            mode >> 3
        } else {
            mode
        };
        self.owns_all_files() || class & WRITE_AND_SEARCH == WRITE_AND_SEARCH
    }

    fn in_group(&self, id: u32) -> bool {
        id == self.group.files || self.groups.binary_search(&id).is_ok()
    }

    /// Whether it may change a file of `owner`'s to these.
    pub(crate) fn may_give(&self, owner: (u32, u32), user: Option<u32>, group: Option<u32>) -> bool {
        let owns = self.user.files == owner.0;
        self.owns_all_files()
            || user.is_none_or(|id| owns && id == owner.0)
                && group.is_none_or(|id| owns && (id == owner.1 || self.in_group(id)))
    }
}
