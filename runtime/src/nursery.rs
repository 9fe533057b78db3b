//! A small process that forks init processes, so that a step does not pay for starting a program.
//!
//! kiln's own process has threads and much memory: it must not be forked. Executing the binary anew for each step costs
//! half a millisecond, most of it the C library asking the processor for its features, which is slow in virtual
//! machines. So it is executed once, for the first step, with an empty environment, and forks from then on.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kiln_core::{Emulator, IoResultExt, NetworkMode};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::fs::{MemfdFlags, Mode, SealFlags, fcntl_add_seals, fstat, memfd_create, stat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::mount::MountAttrFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::Signal;

use crate::chroot::Descendants;
use crate::enter::Isolation;
use crate::error::RunError;
use crate::sys::{self, Forked, StringArray};
use crate::{emulator, files, init, mounts, seccomp};

/// The name under which this binary, executed again, is the nursery; also what `ps` shows of init.
pub(crate) const INIT: &str = "kiln-init";

/// Where it finds its end of the socket.
pub(crate) const SOCKET: i32 = 3;

/// What init gets: standard streams and its control socket, as these descriptors.
const STREAMS: usize = 4;

/// Besides, it may get a network namespace.
const MOST: usize = STREAMS + 1;

const NAMESPACES: libc::c_int =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;

/// What it is asked for instead of namespaces: an init in none, whose descendants it takes over if need be.
const BARE: i32 = 1 << 8;

/// To end what inits without namespaces that were killed have left.
const END_ORPHANS: i32 = 1 << 9;

/// The process, as seen from kiln. It ends when this is dropped, or when kiln is gone.
#[derive(Debug)]
pub(crate) struct Nursery {
    socket: Mutex<OwnedFd>,
    pid: Pid,
}

impl Nursery {
    /// Executes it. With an emulator, its steps run in a user namespace in which that is registered: then it has to be in
    /// the network that they shall have already, as it may not join that from there.
    pub(crate) fn start(
        emulator: Option<&Emulator>,
        network: Option<BorrowedFd<'_>>,
    ) -> Result<Self, RunError> {
        let this = Self::execute(emulator, network).at("execute", "/proc/self/exe")?;
        if let Some(emulator) = emulator {
            let socket = this.socket.lock().unwrap_or_else(PoisonError::into_inner);
            emulator::introduce(socket.as_fd(), this.pid, emulator)?;
        }
        Ok(this)
    }

    fn execute(emulator: Option<&Emulator>, network: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let packets = |flags| socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (socket, theirs) = packets(SocketFlags::CLOEXEC)?;
        let mut args = vec![INIT.as_bytes()];
        if let Some(Emulator { architecture, program }) = emulator {
            args.extend([architecture.as_bytes(), program.as_os_str().as_bytes()]);
        }
        let args = StringArray::new(args)?;
        let env = StringArray::new([""; 0])?;
        let program = own_program()?;
        let mut failure = None;
        let child = &mut || {
            let joined = network.map_or(Ok(()), join);
            failure =
                joined.and_then(|()| become_nursery(theirs.as_fd(), program.as_fd(), &args, &env)).err();
            127
        };
        let (pid, _) = sys::vfork(0, child)?;
        if let Some(error) = failure {
            waitpid(pid, None)?;
            return Err(error);
        }
        Ok(Self { socket: Mutex::new(socket), pid })
    }

    /// Forks an init process with these standard streams and this control socket, in this network namespace if there is
    /// one; returns a descriptor for it.
    pub(crate) fn fork(
        &self,
        isolation: Isolation,
        network: NetworkMode,
        namespace: Option<BorrowedFd<'_>>,
        streams: [BorrowedFd<'_>; STREAMS],
    ) -> io::Result<OwnedFd> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = match isolation {
            Isolation::Namespaces => i32::from(network == NetworkMode::None),
            Isolation::Chroot => BARE,
        };
        let fds: Vec<BorrowedFd<'_>> = streams.into_iter().chain(namespace).collect();
        send(socket.as_fd(), wanted, &fds)?;
        let (errno, fds) = receive(socket.as_fd())?.ok_or_else(|| io::Error::from(Errno::PIPE))?;
        match fds.into_iter().next() {
            Some(pidfd) => Ok(pidfd),
            None => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Nursery {
    /// Ends the processes of inits without namespaces that were killed; returns when they are gone.
    pub(crate) fn end_orphans(&self) -> io::Result<()> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        send(socket.as_fd(), END_ORPHANS, &[])?;
        receive(socket.as_fd())?.map(drop).ok_or_else(|| io::Error::from(Errno::PIPE))
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        let socket = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It ends when it sees this; if it has ended already, that is just as well.
        let _ = rustix::net::shutdown(&*socket, rustix::net::Shutdown::Both);
        let _ = waitpid(self.pid, None);
    }
}

/// Reads the arguments that [`Nursery::start`] gave.
pub(crate) fn emulator_of(mut args: impl Iterator<Item = OsString>) -> Option<Emulator> {
    let architecture = args.next()?.into_string().ok()?;
    Some(Emulator { architecture, program: args.next()?.into() })
}

/// Serves as the nursery; does not return in this process. Forked processes go on as init.
pub(crate) fn serve(socket: OwnedFd, emulator: Option<Emulator>) -> ! {
    // Else it is called by the number of the descriptor that it was executed by.
    let _ = rustix::thread::set_name(c"kiln-init");
    // The caller's keys are none of a step's business. Refused in a container whose filter forbids the call: then it
    // forbids it to steps, too.
    let _ = sys::new_session_keyring();
    let _registered = emulator.map(|emulator| match emulator::settle(socket.as_fd(), &emulator) {
        Some(registered) => registered,
        None => sys::exit_now(1),
    });
    // A terminal's signals are for kiln, which decides what becomes of its steps. An init has all of them blocked from its
    // first moment, so that none is lost before it reads them.
    let _ = rustix::process::setpgid(None, None);
    let _ = nix::sys::signal::SigSet::all().thread_block();
    let filters = seccomp::Filters::new();
    let mut bare: Option<(Descendants, BTreeSet<i32>)> = None;
    // Init shall outlive the nursery no more than kiln: both end when their sockets close.
    while let Ok(Some((wanted, fds))) = receive(socket.as_fd()) {
        let answer = match (wanted, split(fds)) {
            (END_ORPHANS, _) => {
                if let Some((descendants, inits)) = &mut bare {
                    // If /proc cannot be read, nobody can be found.
                    let _ = descendants.end(inits);
                }
                send(socket.as_fd(), 0, &[])
            }
            (_, Ok((streams, namespace))) => {
                reap(bare.as_mut().map(|(_, inits)| inits));
                if wanted == BARE && bare.is_none() {
                    bare = Descendants::adopt().ok().map(|descendants| (descendants, BTreeSet::new()));
                }
                let flags = match wanted {
                    0 => NAMESPACES,
                    BARE => 0,
                    _ => NAMESPACES | libc::CLONE_NEWNET,
                };
                match sys::fork_into(flags) {
                    Ok(Forked::Child) => {
                        drop((socket, bare));
                        // What one step puts into its session's keyring is none of another's business. If it cannot be
                        // had (a user may have 200 keys, keyrings(7)), the nursery's, which is not the caller's, stays.
                        let _ = sys::new_session_keyring();
                        let [stdin, stdout, stderr, control] = streams;
                        become_init(
                            wanted != BARE,
                            namespace.as_ref(),
                            [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
                        );
                        init::serve(control, &filters);
                    }
                    Ok(Forked::Parent(pid, pidfd)) => {
                        if let Some((_, inits)) = &mut bare {
                            inits.insert(pid);
                        }
                        send(socket.as_fd(), 0, &[pidfd.as_fd()])
                    }
                    Err(error) => send(socket.as_fd(), error.raw_os_error().unwrap_or(libc::EIO), &[]),
                }
            }
            (_, Err(_)) => break,
        };
        if answer.is_err() {
            break;
        }
    }
    if let Some((descendants, inits)) = &mut bare {
        // If /proc cannot be read, nobody can be found.
        let _ = descendants.end(inits);
    }
    sys::exit_now(0)
}

/// Takes what has ended since the last time: its descriptor told of its end then.
fn reap(mut inits: Option<&mut BTreeSet<i32>>) {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let Some(pid) = status.pid() else { break };
        if let Some(inits) = &mut inits {
            inits.remove(&pid.as_raw());
        }
    }
}

/// kiln's own program, behind a mount that cannot be written to. A step can execute it by /proc/self/exe, and then
/// reach it by /proc/PID/exe: it must not be able to put another program in its place, as with runc
/// (CVE-2019-5736, <https://www.openwall.com/lists/oss-security/2019/02/11/2>). Where nothing can be mounted,
/// a sealed copy in memory does the same.
fn own_program() -> io::Result<OwnedFd> {
    let running = Path::new("/proc/self/exe");
    read_only(running).or_else(|_| sealed_copy(running))
}

/// The mount that the program was started from is another namespace's: it has to be found in this one by its name.
fn read_only(running: &Path) -> io::Result<OwnedFd> {
    let mounted = mounts::bind(&std::fs::read_link(running)?, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    let (ours, found) = (stat(running)?, fstat(&mounted)?);
    if (ours.st_dev, ours.st_ino) != (found.st_dev, found.st_ino) {
        // Replaced since it was started, by an update.
        return Err(Errno::STALE.into());
    }
    Ok(mounted)
}

fn sealed_copy(program: &Path) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = std::fs::File::from(memfd_create(INIT, flags)?);
    io::copy(&mut std::fs::File::open(program)?, &mut copy)?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o555))?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(copy.into())
}

/// Where the program to execute is, seen by who has it as this descriptor.
const PROGRAM: (i32, &CStr) = (4, c"/proc/self/fd/4");

/// Runs between vfork and exec: system calls only.
fn become_nursery(
    socket: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    args: &StringArray,
    env: &StringArray,
) -> io::Result<std::convert::Infallible> {
    // Copies out of the way of the numbers that are to be given, which the caller may have free or in use. What comes
    // with a request later gets higher ones.
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, Mode::empty())?;
    let above = PROGRAM.0 + 1;
    let (null, socket) = (fcntl_dupfd_cloexec(null, above)?, fcntl_dupfd_cloexec(socket, above)?);
    let program = fcntl_dupfd_cloexec(program, above)?;
    sys::place(socket.as_fd(), SOCKET)?;
    sys::place(program.as_fd(), PROGRAM.0)?;
    for number in 0..SOCKET {
        sys::place(null.as_fd(), number)?;
    }
    files::restore();
    sys::close_on_exec_from(SOCKET.cast_unsigned() + 1)?;
    Err(sys::exec(PROGRAM.1, args, env))
}

/// Makes a network namespace the caller's.
fn join(network: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::sched::setns(network, CloneFlags::CLONE_NEWNET)?)
}

/// The first things a forked process does. It is alone, so that nothing can fail but by the machine's fault; then it
/// ends, and kiln sees that.
fn become_init(dies_with_parent: bool, network: Option<&OwnedFd>, streams: [BorrowedFd<'_>; 3]) {
    // Without a pid namespace to die with it, init has to end the step's processes first.
    let ready = rustix::process::set_parent_process_death_signal(dies_with_parent.then_some(Signal::KILL))
        .map_err(io::Error::from)
        .and_then(|()| network.map_or(Ok(()), |network| join(network.as_fd())))
        .and_then(|()| (0..).zip(streams).try_for_each(|(number, stream)| sys::place(stream, number)));
    if ready.is_err() {
        sys::exit_now(1)
    }
}

pub(crate) fn send(socket: BorrowedFd<'_>, number: i32, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let number = number.to_ne_bytes();
    sendmsg(socket, &[IoSlice::new(&number)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The streams, and the network namespace if there is one.
fn split(mut fds: Vec<OwnedFd>) -> Result<([OwnedFd; STREAMS], Option<OwnedFd>), Vec<OwnedFd>> {
    let namespace = if fds.len() > STREAMS { fds.pop() } else { None };
    Ok((fds.try_into()?, namespace))
}

/// Receives a number and descriptors. None at the end.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(i32, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut number = [0; 4];
    let received = loop {
        let mut into = [IoSliceMut::new(&mut number)];
        match recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // Killed with a request unread.
            Err(Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // The process may have no more descriptors.
        return Err(Errno::MFILE.into());
    }
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(Some((i32::from_ne_bytes(number), fds)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_sealed_copy_can_be_executed_and_not_changed() {
        let copy = sealed_copy(Path::new("/bin/true")).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), copy.as_raw_fd());
        assert!(std::process::Command::new(&path).status().unwrap().success());
        assert_eq!(rustix::io::pwrite(&copy, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&copy, 0), Err(Errno::PERM));
    }
}
