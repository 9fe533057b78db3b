//! A nursery for foreign steps settles in a user namespace of its own, with an emulator registered there.
//!
//! Every id is itself in that namespace, so that owners come out as without it. kiln writes the maps: it has the
//! privileges outside. The rest is the nursery's to do, a thing after the other, and it says of each how it went.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use kiln_core::{Emulator, IoError, IoResultExt};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::table::{Row, row};
use super::trial;
use crate::error::{EmulatorStage, RunError};
use crate::nursery::{receive, send};
use crate::{ids, mounts};

/// What kiln is told if an emulator runs, but runs wrong.
const WRONG: i32 = -1;

/// Kiln's side: follows the nursery until its emulator works.
pub(crate) fn introduce(socket: BorrowedFd<'_>, nursery: Pid, emulator: &Emulator) -> Result<(), RunError> {
    for stage in EmulatorStage::ALL {
        let said = receive(socket).at("read from", "the nursery")?;
        let (code, _) = said.ok_or_else(|| io::Error::from(Errno::PIPE)).at("read from", "the nursery")?;
        if code != 0 {
            let Emulator { architecture, program } = emulator.clone();
            let message = match code {
                WRONG => "it ends badly".to_owned(),
                errno => IoError::new("", "", &io::Error::from_raw_os_error(errno)).message,
            };
            return Err(RunError::Emulator { architecture, program, stage, message });
        }
        if stage == EmulatorStage::Namespace {
            map_identity(nursery)?;
            send(socket, 0, &[]).at("write to", "the nursery")?;
        }
    }
    Ok(())
}

/// The nursery's side. What comes back keeps the registration; none if kiln was told that there is none.
pub(crate) fn settle(socket: BorrowedFd<'_>, emulator: &Emulator) -> Option<OwnedFd> {
    let row = row(&emulator.architecture)?;
    let tell = |result: io::Result<()>| {
        let code = result.err().map_or(0, |error| error.raw_os_error().unwrap_or(WRONG));
        (send(socket, code, &[]).is_ok() && code == 0).then_some(())
    };
    tell(unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(Into::into))?;
    receive(socket).ok()??;
    let handlers = mounts::fresh(
        "binfmt_misc",
        &[],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    );
    let (handlers, mounted) = match handlers {
        Ok(handlers) => (Some(handlers), Ok(())),
        Err(error) => (None, Err(error)),
    };
    tell(mounted)?;
    let handlers = handlers?;
    tell(register(&handlers, "PCF", &row, &emulator.program))?;
    let mut tried = trial::run(&row);
    // From version 6 on qemu understands P, by which a program keeps its own idea of its name (`-sh`). An older one takes
    // the name for the first argument. Of two handlers the later one is asked.
    if !matches!(tried, Ok(0)) && register(&handlers, "CF", &row, &emulator.program).is_ok() {
        tried = trial::run(&row);
    }
    tell(tried.and_then(|code| if code == 0 { Ok(()) } else { Err(io::Error::other("it ends badly")) }))?;
    Some(handlers)
}

/// Writes a line to `register`; C makes set-user-ID programs work.
fn register(handlers: &OwnedFd, flags: &str, row: &Row, program: &Path) -> io::Result<()> {
    // A read-only mount: a step reaches the emulator as /proc/PID/exe, and must not write to it as root.
    let program = mounts::bind(program, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    // By its descriptor: the line takes 127 bytes of a path and no colon, and F opens it here and now.
    let line = format!(
        ":{}-{flags}:M::{}:{}:/proc/self/fd/{}:{flags}",
        row.architecture,
        hex(&row.magic),
        hex(&row.mask),
        program.as_raw_fd()
    );
    let file = openat(handlers, "register", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    File::from(file).write_all(line.as_bytes())
}

/// Every id that exists here is itself inside.
fn map_identity(pid: Pid) -> Result<(), IoError> {
    for kind in ["gid", "uid"] {
        let own = format!("/proc/self/{kind}_map");
        let map = ids::identity_of(&ids::parse_map(&fs::read_to_string(&own).at("read", &own)?));
        let path = format!("/proc/{pid}/{kind}_map");
        fs::write(&path, map).at("write", &path)?;
    }
    Ok(())
}
