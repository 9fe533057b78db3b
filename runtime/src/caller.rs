//! Programs of whoever started kiln, run as that user: credential helpers.
//!
//! In kiln's user namespace its user is root, and so would be what it starts. For files and sockets that is no difference. But
//! `pass` and gpg ask who they are, look for a home directory by it, and want their files to be theirs; and a client of the
//! desktop's bus tells it a user id, which must be the one that the bus sees
//! (<https://dbus.freedesktop.org/doc/dbus-specification.html#auth-mechanisms>). There is no way back out of a namespace; but one
//! more below it can have the user's own ids: user_namespaces(7).

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::enter::Entered;

/// The name under which this binary, executed again, executes another program.
pub(crate) const CALLER: &str = "kiln-caller";

/// Who started kiln, where kiln is somebody else to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Entered {
    /// Returns the arguments, the zeroth first, with which `/proc/self/exe` executes what follows them (a path and its
    /// arguments) as the user who started this process. None: that is who it is, and nothing has to be done.
    pub fn as_caller(&self) -> Option<Vec<String>> {
        self.caller.map(Caller::arguments)
    }
}

impl Caller {
    fn arguments(self) -> Vec<String> {
        vec![CALLER.to_owned(), self.uid.to_string(), self.gid.to_string()]
    }

    /// Makes this process, which has one thread, the user's.
    fn become_again(self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // Without it nobody may map a group from inside.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{} 0 1\n", self.uid))?;
        fs::write("/proc/self/gid_map", format!("{} 0 1\n", self.gid))
    }
}

/// Serves as that process; does not return.
pub(crate) fn serve(mut arguments: impl Iterator<Item = OsString>) -> ! {
    let mut id = || arguments.next()?.to_str()?.parse().ok();
    let caller = id().zip(id()).map(|(uid, gid)| Caller { uid, gid });
    if let Some(program) = caller.and_then(|_| arguments.next()) {
        // Where that is not allowed it runs as root of kiln's namespace, which is enough for most.
        let _ = caller.map(Caller::become_again);
        let error = Command::new(&program).args(arguments).exec();
        // Whoever waits for it shows what it wrote.
        let _ = writeln!(io::stderr(), "{} cannot be executed: {error}", program.display());
    }
    std::process::exit(127)
}
