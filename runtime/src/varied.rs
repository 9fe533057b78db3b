//! What can be made different for a step on purpose, and why not where it cannot: for who wants to know whether its result depends on
//! that.

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::enter::{Entered, Isolation};
use crate::{init, notify, sys};

impl Entered {
    /// Returns whether steps can have a host name of their own.
    ///
    /// # Errors
    /// Why not, in a person's words.
    pub fn can_name_hosts(&self) -> Result<(), String> {
        if self.isolation() == Isolation::Chroot {
            return Err("steps run in a chroot".to_owned());
        }
        let mut refused = None;
        let tried = sys::vfork(libc::CLONE_NEWUTS, &mut || {
            refused = rustix::system::sethostname(b"kiln").err();
            0
        });
        let tried = tried.and_then(|(pid, _)| Ok(nix::sys::wait::waitpid(pid, None)?));
        match refused.or(tried.err().map(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))) {
            None => Ok(()),
            Some(error) => Err(format!("sethostname is refused: {error}")),
        }
    }

    /// Returns whether steps can see directories in another order ([`RunSpec::directory_order`](kiln_core::RunSpec)).
    ///
    /// # Errors
    /// Why not, in a person's words.
    pub fn can_reorder(&self) -> Result<(), String> {
        if !init::may_filter(self.isolation()) {
            return Err("in a chroot it takes CAP_SYS_ADMIN to filter a step's system calls".to_owned());
        }
        // To share open files of steps that are other users.
        let has = rustix::thread::capabilities(None).map_err(|error| error.to_string())?;
        if !has.effective.contains(CapabilitySet::SYS_PTRACE) {
            return Err("it takes CAP_SYS_PTRACE to reach what steps have open".to_owned());
        }
        notify::available()
    }
}
