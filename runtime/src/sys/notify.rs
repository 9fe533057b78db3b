//! System calls for answering those of another process: seccomp_unotify(2), process_vm_readv(2), prlimit(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct seccomp_notif`: a call that waits for an answer.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    /// The calling thread, as this process sees it.
    pub(crate) tid: u32,
    flags: u32,
    pub(crate) number: i32,
    pub(crate) architecture: u32,
    instruction: u64,
    pub(crate) arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddDescriptor {
    id: u64,
    flags: u32,
    source: u32,
    wanted: u32,
    new_flags: u32,
}

// linux/seccomp.h
const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const IS_VALID: u32 = 0x4008_2102;
const ADD_DESCRIPTOR: u32 = 0x4018_2103;
const SET_FLAGS: u32 = 0x4008_2104;
const SYNC_WAKE_UP: u64 = 1;
const CONTINUE: u32 = 1;
const ADD_AND_SEND: u32 = 2;
const NEW_LISTENER: libc::c_ulong = 1 << 3;
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// What a notified call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel carries it out as if nobody had been asked.
    Continue,
    Value(i64),
    Error(rustix::io::Errno),
}

/// Installs a filter as [`install_filter`](super::install_filter) does, and returns the descriptor to which it reports the
/// calls that it does not decide. Once such a call has been read there, only death interrupts it (Linux 5.19): a signal
/// must not make a program repeat what is done already.
pub(crate) fn install_filter_with_listener(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let install = |flags: libc::c_ulong| {
        // SAFETY: the kernel copies `program`, which says its own length, and changes nothing.
        let fd = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        match i32::try_from(fd) {
            // SAFETY: with NEW_LISTENER the kernel made this descriptor for us alone.
            Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | NEW_LISTENER;
    match install(flags | WAIT_KILLABLE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(flags),
        other => other,
    }
}

/// Makes an answer wake its caller on this processor (Linux 6.6): nothing else is to be done here meanwhile.
pub(crate) fn wake_in_turn(listener: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes the flags as a number.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) }.into())
}

/// Asks for short turns, so that this thread gets one soon after it is woken, however busy the machine is. Linux 6.12.
pub(crate) fn take_short_turns() -> io::Result<()> {
    /// The shortest that the kernel grants.
    const NANOSECONDS: u64 = 100_000;
    /// `struct sched_attr` of sched_setattr(2), as it was at first.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let nice = rustix::process::getpriority_process(None)?;
    let attributes = Attributes {
        size: 48,
        policy: 0,
        flags: 0,
        nice,
        priority: 0,
        runtime: NANOSECONDS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: reads a structure that says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// Waits for the next call.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // The kernel wants zeros.
    let mut notification = Notification::default();
    // SAFETY: fills in a structure of the size that the request's number says.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut notification) }.into())?;
    Ok(notification)
}

/// Answers a call.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let mut response = Response { id, ..Response::default() };
    match answer {
        Answer::Continue => response.flags = CONTINUE,
        Answer::Value(value) => response.value = value,
        Answer::Error(errno) => response.error = -errno.raw_os_error(),
    }
    // SAFETY: reads a structure of the size that the request's number says.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw mut response) }.into())
}

/// Whether the caller still waits. Without this, its thread id may be somebody else's by now.
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: reads a number.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), IS_VALID as _, &raw const id) }.into()).is_ok()
}

/// Gives the caller a descriptor and answers with its number, both or neither (Linux 5.14).
pub(crate) fn answer_with_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let add = AddDescriptor {
        id,
        flags: ADD_AND_SEND,
        source: descriptor.as_raw_fd().cast_unsigned(),
        wanted: 0,
        new_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: reads a structure of the size that the request's number says.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), ADD_DESCRIPTOR as _, &raw const add) }.into())
}

/// Reads another process's memory, as much as is mapped there.
pub(crate) fn read_memory(tid: u32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: remote(address)?, iov_len: into.len() };
    // SAFETY: writes into `into` only, no more than its length; the other address is looked up in the other process.
    let read =
        unsafe { libc::process_vm_readv(tid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes into another process's memory; all of it or an error.
pub(crate) fn write_memory(tid: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: remote(address)?, iov_len: bytes.len() };
    // SAFETY: only reads `bytes`; the other address is looked up in the other process.
    let written =
        unsafe { libc::process_vm_writev(tid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(written) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn remote(address: u64) -> io::Result<*mut libc::c_void> {
    let address = usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    Ok(std::ptr::without_provenance_mut(address))
}

/// Reads the soft limit of a process's file locks, which the kernel has not looked at since 2.4: getrlimit(2).
pub(crate) fn locks_limit(tid: u32) -> io::Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let (pid, resource) = (tid.cast_signed(), libc::RLIMIT_LOCKS);
    // SAFETY: fills in `limit`.
    check(unsafe { libc::prlimit64(pid, resource, std::ptr::null(), &raw mut limit) }.into())?;
    Ok(limit.rlim_cur)
}

/// Sets it.
pub(crate) fn set_locks_limit(tid: u32, value: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: value, rlim_max: libc::RLIM64_INFINITY };
    let (pid, resource) = (tid.cast_signed(), libc::RLIMIT_LOCKS);
    // SAFETY: reads `limit`.
    check(unsafe { libc::prlimit64(pid, resource, &raw const limit, std::ptr::null_mut()) }.into())
}

/// What statx(2) says of an open file, as the kernel lays it out.
pub(crate) fn statx_bytes(fd: BorrowedFd<'_>, flags: u32, mask: u32) -> io::Result<[u8; 256]> {
    const SYNC_TYPE: u32 = 0x6000;
    let mut buffer = [0_u8; 256];
    let flags = flags & SYNC_TYPE | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: fills in `buffer`, which is as long as `struct statx` is and will be.
    check(unsafe {
        libc::syscall(libc::SYS_statx, fd.as_raw_fd(), c"".as_ptr(), flags, mask, buffer.as_mut_ptr())
    })?;
    Ok(buffer)
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Changes the calling thread's own ids, by the kernel: for comparing.
#[cfg(test)]
pub(crate) fn change_really(change: &crate::notify::Change) -> io::Result<()> {
    use crate::notify::{Change, Kind};
    let of = |kind: &Kind, user: libc::c_long, group: libc::c_long| match kind {
        Kind::User => user,
        Kind::Group => group,
    };
    // SAFETY: each takes numbers, but for setgroups, which reads as many as it is told.
    unsafe {
        match change {
            Change::One(kind, id) => check(libc::syscall(of(kind, libc::SYS_setuid, libc::SYS_setgid), *id)),
            Change::Two(kind, [a, b]) => {
                check(libc::syscall(of(kind, libc::SYS_setreuid, libc::SYS_setregid), *a, *b))
            }
            Change::Three(kind, [a, b, c]) => {
                check(libc::syscall(of(kind, libc::SYS_setresuid, libc::SYS_setresgid), *a, *b, *c))
            }
            Change::Files(kind, id) => {
                libc::syscall(of(kind, libc::SYS_setfsuid, libc::SYS_setfsgid), *id);
                Ok(())
            }
            // It changes no ids by itself.
            Change::Keep(_) => Ok(()),
            Change::Groups(ids) => check(libc::syscall(libc::SYS_setgroups, ids.len(), ids.as_ptr())),
        }
    }
}
