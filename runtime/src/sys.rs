//! The system calls that need `unsafe`, and nothing else.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use kiln_core::StepUsage;

pub(crate) mod notify;

/// Room for a [`vfork`] child's frames; only touched pages cost anything.
const CHILD_STACK: usize = 128 * 1024;

/// Starts a child that shares this process's memory until it executes a program or ends; the calling thread stands
/// still that long. Returns its pid and a descriptor for it.
///
/// This is what posix_spawn does, with namespaces: no page tables are copied, so it costs the same in a large process
/// as in a small one (clone(2), vfork(2)). `flags` are `CLONE_NEW*`; the child's id in `CLONE_NEWPID` is 1. All
/// signals are blocked in the child. What `child` returns becomes its exit code; what it stores in captured variables
/// is seen here.
pub(crate) fn vfork(
    flags: c_int,
    child: &mut dyn FnMut() -> c_int,
) -> io::Result<(nix::unistd::Pid, OwnedFd)> {
    extern "C" fn enter(argument: *mut c_void) -> c_int {
        // SAFETY: `argument` is the `closure` below, which the suspended parent keeps alive.
        let closure = unsafe { &mut *argument.cast::<&mut dyn FnMut() -> c_int>() };
        // An unwinding panic must not leave this frame: there is nothing above it.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(closure)).unwrap_or(101)
    }

    let mut stack: Box<[MaybeUninit<u128>]> = Box::new_uninit_slice(CHILD_STACK / size_of::<u128>());
    let mut closure: &mut dyn FnMut() -> c_int = child;
    let mut pidfd: RawFd = -1;
    // SAFETY: the signal sets are plain data that these calls fill in. A handler must not run in the child: it would
    // see the parent's memory under another process id.
    let mut old = unsafe {
        let (mut all, mut old) =
            (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::<libc::sigset_t>::uninit());
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        old
    };
    // SAFETY: CLONE_VFORK suspends this thread until the child has left our memory, so stack, closure and pidfd
    // outlive their use; the child has its own stack, and other threads keep running, so that a lock they hold comes
    // free. The stack grows down from its aligned end.
    let pid = unsafe {
        libc::clone(
            enter,
            stack.as_mut_ptr_range().end.cast(),
            flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut closure).cast(),
            &raw mut pidfd,
        )
    };
    let error = io::Error::last_os_error();
    // SAFETY: `old` was filled in above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_mut_ptr(), std::ptr::null_mut()) };
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: CLONE_PIDFD made this descriptor for us alone.
    Ok((nix::unistd::Pid::from_raw(pid), unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Forks. Only for a process with a single thread: in another, the child could wait for a lock that nobody holds.
pub(crate) fn fork_single_threaded() -> io::Result<nix::unistd::ForkResult> {
    // SAFETY: the callers have checked that there is one thread (`enter`, before anything else).
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Which side of [`fork_into`] this is.
pub(crate) enum Forked {
    /// With the child's number and a descriptor for it.
    Parent(i32, OwnedFd),
    Child,
}

/// Forks into new namespaces. Only for a process with a single thread, as above.
pub(crate) fn fork_into(namespaces: c_int) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: without CLONE_VM the child has a copy of this stack and of everything else; as there is one thread, no lock
    // is held in it by nobody. What the C library caches of the thread's id is not used by this crate. The arguments that
    // architectures order differently are all null (s390x has another order; it is no platform of ours). Not clone3(2):
    // containers' seccomp filters make it look missing.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, none) };
    match pid {
        0 => Ok(Forked::Child),
        1.. => {
            // SAFETY: CLONE_PIDFD made this descriptor for us alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent(i32::try_from(pid).unwrap_or(-1), pidfd))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// A null-terminated list of strings, as execve(2) takes it.
pub(crate) struct StringArray {
    /// Owns what the pointers point to.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringArray {
    /// Fails for a string that holds a zero byte.
    pub(crate) fn new<S: Into<Vec<u8>>>(strings: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let strings = strings.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { _strings: strings, pointers })
    }
}

/// Executes a program; returns only if that failed. Allocates nothing.
pub(crate) fn exec(path: &CStr, args: &StringArray, env: &StringArray) -> io::Error {
    // SAFETY: both arrays end with null and point to strings that they own.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes `to` the descriptor number of `from` as well, without close-on-exec. For a child between vfork and exec.
pub(crate) fn place(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    let from = from.as_raw_fd();
    // SAFETY: dup2 and fcntl take numbers; the child's table is its own, and it owns no `OwnedFd` for `to`.
    let result =
        unsafe { if from == to { libc::fcntl(from, libc::F_SETFD, 0) } else { libc::dup2(from, to) } };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Marks every descriptor from `first` on as close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC closes nothing by itself.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    // Linux before 5.11.
    let numbers: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd: &RawFd| fd.unsigned_abs() >= first)
        .collect();
    for fd in numbers {
        // SAFETY: sets a flag on a number; one that is closed by now gives EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Gives every signal its default disposition. For a process that has no handlers.
pub(crate) fn reset_signals() {
    // An all-zero kernel sigaction says SIG_DFL. The C library's call would leave out the two signals that are its own,
    // and those may come ignored from whoever started kiln.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads `default`, which is as large as its structure; KILL and STOP are refused, as they
        // may be.
        unsafe {
            let old = std::ptr::null_mut::<c_void>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, size_of::<u64>());
        }
    }
}

/// Puts a filter before the system calls of this process and what it starts: seccomp(2). Needs CAP_SYS_ADMIN, as
/// programs that give privileges (sudo) shall go on working, which rules out `no_new_privs`.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `program`, which says its own length, and changes nothing. The flag spares what is
    // filtered the slow answer to speculation attacks that Linux before 5.16 had for it; docker sets it, too.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Leaves the session keyring of whoever started kiln for a new, empty one: keyctl(2).
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: takes a number and a null pointer, for a keyring without a name.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Unblocks all signals.
pub(crate) fn unblock_signals() {
    // SAFETY: `none` is filled in before it is read.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// What all children that were waited for used.
pub(crate) fn usage_of_children() -> StepUsage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: fills in `usage`, which is valid when all zero, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    StepUsage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        peak_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
        ..StepUsage::default()
    }
}

/// Attributes for [`mount_setattr`], as in its manual page.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

/// Changes the attributes of the mount `fd`, and of those below it if `recursive`: mount_setattr(2), Linux 5.12.
pub(crate) fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` has the layout and the size that it says it has.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings up `lo` in the caller's network namespace: netdevice(7).
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: an all-zero ifreq is valid, its name is terminated, and both calls get its address.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed() as c_char;
        request.ifr_name[1] = b'o'.cast_signed() as c_char;
        let fd = socket.as_fd().as_raw_fd();
        if libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends the process at once, without the C library's and Rust's own cleaning up: for forked children, in which buffers
/// and exit handlers are copies of the parent's.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Takes over a descriptor that this process got by its number. Only for one that the parent put there.
pub(crate) fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: asks for a number's flags; a closed one gives EBADF.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and nothing in this process, which has just started, owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
