//! Whether this machine lets kiln answer system calls.

use std::io;

use libc::{BPF_K, BPF_RET, SECCOMP_RET_ALLOW, sock_filter};

use crate::sys;

/// What `SECCOMP_ADDFD_FLAG_SEND` came with.
const NEEDED: (u32, u32) = (5, 14);

/// Tries it out in a process of its own; the error is the reason why not, in a person's words.
pub(crate) fn available() -> Result<(), String> {
    if crate::kernel::version() < NEEDED {
        return Err("system calls cannot be answered before Linux 5.14".to_owned());
    }
    let proc = std::fs::read_link("/proc/self").is_ok_and(|link| link == std::path::Path::new(&own_id()));
    if !proc {
        return Err("/proc shows the processes of another pid namespace".to_owned());
    }
    let nothing = sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: SECCOMP_RET_ALLOW };
    let mut failed = None;
    let tried = sys::vfork(0, &mut || {
        failed = sys::notify::install_filter_with_listener(&[nothing]).err();
        0
    });
    let tried = tried.and_then(|(pid, _)| Ok(nix::sys::wait::waitpid(pid, None)?));
    match failed.or(tried.err()) {
        None => Ok(()),
        Some(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            Err("somebody answers this process's own system calls already, as a kiln around this one"
                .to_owned())
        }
        Some(error) => Err(format!("seccomp user notification is refused: {}", io_message(&error))),
    }
}

fn own_id() -> String {
    std::process::id().to_string()
}

fn io_message(error: &io::Error) -> String {
    kiln_core::IoError::new("", "", error).message
}
