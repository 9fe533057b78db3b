//! Tries whether a small program of an architecture runs here.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::wait::{WaitStatus, waitpid};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::elf;
use super::table::Row;
use crate::mounts;
use crate::sys::{self, StringArray};

const NAME: &str = "program";

/// Runs the smallest program of an architecture with an empty directory as its root, where nothing but the kernel can
/// help it: no dynamic loader, no interpreter by path. Returns its exit code: how many arguments it saw besides its name.
///
/// # Errors
/// It cannot be executed here ("Exec format error", or what an interpreter lacks), or was killed.
pub(super) fn run(row: &Row) -> io::Result<i32> {
    let root = Root::with(&elf::program(row))?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (args, env) = (StringArray::new([NAME])?, StringArray::new([""; 0])?);
    // A thread of this process that starts a program at this moment holds the file open for writing, for a moment.
    const TRIES: usize = 1000;
    for _ in 0..TRIES {
        let mut failure = None;
        let child = &mut || {
            failure = become_program(&root.dir, &null, &args, &env).err();
            127
        };
        let (pid, _) = sys::vfork(0, child)?;
        let status = waitpid(pid, None)?;
        match (failure, status) {
            (Some(error), _) if error.raw_os_error() == Some(libc::ETXTBSY) => std::thread::yield_now(),
            (Some(error), _) => return Err(error),
            (None, WaitStatus::Exited(_, code)) => return Ok(code),
            (None, status) => return Err(io::Error::other(format!("it ended with {status:?}"))),
        }
    }
    Err(Errno::TXTBSY.into())
}

/// A directory with only this program in it: in memory, or where nothing can be mounted a temporary one.
struct Root {
    dir: OwnedFd,
    temporary: Option<PathBuf>,
}

impl Root {
    fn with(program: &[u8]) -> io::Result<Self> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | mounts::NODEV;
        let root = match mounts::tmpfs(&[("mode", "0755")], attributes) {
            Ok(dir) => Self { dir, temporary: None },
            Err(_) => {
                let path = nix::unistd::mkdtemp("/tmp/kiln-XXXXXX")?;
                let dir = open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                Self { dir, temporary: Some(path) }
            }
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&root.dir, NAME, flags, Mode::from_raw_mode(0o755))?;
        File::from(file).write_all(program)?;
        Ok(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            // What cannot be removed is 130 bytes.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Runs between vfork and exec: system calls only.
fn become_program(
    root: &OwnedFd,
    null: &OwnedFd,
    args: &StringArray,
    env: &StringArray,
) -> io::Result<std::convert::Infallible> {
    for number in 0..3 {
        // What an emulator has to say is no output of kiln's.
        sys::place(null.as_fd(), number)?;
    }
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    sys::unblock_signals();
    Err(sys::exec(c"/program", args, env))
}
