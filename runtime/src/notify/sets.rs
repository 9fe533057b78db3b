//! Which process has which credentials.
//!
//! They must be inherited by fork and kept by exec without kiln being told. So each set of credentials has a number, and
//! a process carries the number of its own as the soft limit of its file locks, which Linux has ignored since 2.4
//! (getrlimit(2)), which is inherited, kept, and can be read and written from outside. A step's own use of that limit is
//! answered, too, and changes nothing.

use std::collections::HashMap;
use std::io;

use rustix::io::Errno;

use super::credentials::Credentials;
use crate::sys::notify as sys;

/// Most sets to remember, and most groups in all of them: a step could invent them without end.
const MOST_SETS: usize = 1 << 16;
const MOST_GROUPS: usize = 1 << 22;

/// All sets of credentials that processes of a step have had. The first is root's.
pub(crate) struct Sets {
    all: Vec<Credentials>,
    numbers: HashMap<Credentials, u64>,
    groups: usize,
}

impl Sets {
    pub(crate) fn new() -> Self {
        let root = Credentials::default();
        Self { numbers: HashMap::from([(root.clone(), 0)]), all: vec![root], groups: 0 }
    }

    /// Returns a process's. While nobody has been anything but root, nobody needs to be asked.
    pub(crate) fn of(&self, tid: u32) -> io::Result<Credentials> {
        let number = if self.all.len() == 1 { 0 } else { sys::locks_limit(tid)? };
        let found = usize::try_from(number).ok().and_then(|number| self.all.get(number));
        Ok(found.unwrap_or(&self.all[0]).clone())
    }

    /// Gives a process new ones.
    pub(crate) fn set(&mut self, tid: u32, credentials: &Credentials) -> io::Result<()> {
        let number = match self.numbers.get(credentials) {
            Some(number) => *number,
            None => self.add(credentials)?,
        };
        sys::set_locks_limit(tid, if number == 0 { libc::RLIM64_INFINITY } else { number })
    }

    fn add(&mut self, credentials: &Credentials) -> io::Result<u64> {
        let groups = self.groups + credentials.groups.len();
        if self.all.len() == MOST_SETS || groups > MOST_GROUPS {
            return Err(Errno::NOMEM.into());
        }
        let number = self.all.len() as u64;
        self.groups = groups;
        self.all.push(credentials.clone());
        self.numbers.insert(credentials.clone(), number);
        Ok(number)
    }
}
