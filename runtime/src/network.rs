//! A network of the steps' own: a namespace whose only way out is pasta(1), which translates addresses in user space.
//!
//! There is one for each kiln process, made for the first step that wants it: pasta takes 75 ms to start, joining the
//! namespace takes none. So steps that run at the same time share its `lo` and its abstract sockets, as they do in the
//! machine's network. pasta runs as the user, inside kiln's user namespace, and is killed when kiln ends
//! (<https://passt.top/passt/about/>, pasta(1)).

use std::fs::{File, Permissions};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use kiln_core::{IoError, IoResultExt};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, getppid, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::mounts::{self, NetworkPin};
use crate::sys::{self, StringArray};

pub(crate) mod names;

/// The program.
const PASTA: &str = "pasta";

/// As much of what pasta says as a message shows, bytes.
const MOST_SAID: usize = 2000;

/// Why there is no private network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NetworkError {
    /// The program is nowhere on PATH.
    #[error("a private network needs pasta, which is not installed (Debian package passt)")]
    NoPasta,
    /// It did not start, or ended before its time.
    #[error("pasta cannot give steps a private network: {said}")]
    Pasta {
        /// What it said, or how it ended.
        said: String,
    },
    /// No namespace.
    #[error("there can be no private network: {0}")]
    Namespace(#[from] IoError),
}

/// The namespace, and pasta serving it for as long as this lives.
#[derive(Debug)]
pub(crate) struct PrivateNetwork {
    namespace: OwnedFd,
    host: Option<IpAddr>,
    ended: Arc<OnceLock<NetworkError>>,
    /// pasta's process.
    pasta: OwnedFd,
    /// Closed to end it.
    stop: Option<PipeWriter>,
    keeper: Option<JoinHandle<()>>,
}

impl PrivateNetwork {
    /// Makes the namespace and waits until pasta serves it.
    pub(crate) fn start() -> Result<Self, NetworkError> {
        let program = find(PASTA).ok_or(NetworkError::NoPasta)?;
        let host = outbound_address();
        let namespace = make_namespace().at("make", "a network namespace")?;
        let ended = Arc::new(OnceLock::new());
        let (stopped, stop) = io::pipe().at("make", "a pipe")?;
        let theirs = namespace.try_clone().at("copy", "a network namespace")?;
        let (say, ready) = channel();
        let keeper = std::thread::Builder::new().name("pasta".to_owned()).spawn({
            let ended = Arc::clone(&ended);
            move || {
                let pasta = Pasta::new(&program, host).at("start", &program).map_err(NetworkError::from);
                if let Err(error) = pasta.and_then(|pasta| pasta.keep(&theirs, &stopped, &say)) {
                    _ = ended.set(error);
                }
            }
        });
        let keeper = keeper.at("start", "a thread")?;
        match ready.recv() {
            Ok(pasta) => Ok(Self { namespace, host, ended, pasta, stop: Some(stop), keeper: Some(keeper) }),
            Err(_) => {
                // The keeper has ended.
                _ = keeper.join();
                let unsaid = || NetworkError::Pasta { said: "it ended".to_owned() };
                Err(ended.get().cloned().unwrap_or_else(unsaid))
            }
        }
    }

    /// To be joined.
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// The machine's address as steps reach it: that of its way out.
    pub(crate) fn host(&self) -> Option<IpAddr> {
        self.host
    }

    /// Why it works no more, if so.
    pub(crate) fn failure(&self) -> Option<&NetworkError> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&self.pasta, PollFlags::IN)], Some(&now));
        // Its end is seen here, perhaps before the keeper has seen it; that one says why in any case.
        if matches!(ended, Ok(1..)) { Some(self.ended.wait()) } else { self.ended.get() }
    }
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(keeper) = self.keeper.take() {
            _ = keeper.join();
        }
    }
}

/// All that its start needs, made ready beforehand: between vfork and exec memory is shared with kiln.
struct Pasta {
    program: std::ffi::CString,
    args: StringArray,
    env: StringArray,
    pin: NetworkPin,
}

impl Pasta {
    fn new(program: &Path, host: Option<IpAddr>) -> io::Result<Self> {
        let pin = NetworkPin::new();
        let network = names::network(host);
        let at = |last: u8| {
            let [a, b, c] = network;
            Ipv4Addr::new(a, b, c, last).to_string()
        };
        let (address, gateway, resolver) = (at(100), at(2), names::forwarder(host).to_string());
        let path = pin.path().to_string_lossy();
        let args = [
            PASTA,
            "--foreground",
            "--quiet",
            "--config-net",
            // As root it would become nobody, who may not join. In a user namespace root is the user.
            "--runas",
            "0",
            "--netns",
            &path,
            // Nothing of the machine's own loopback in there, and nothing from in there on the machine.
            "--no-map-gw",
            "--tcp-ports",
            "none",
            "--udp-ports",
            "none",
            "--tcp-ns",
            "none",
            "--udp-ns",
            "none",
            "--address",
            &address,
            "--netmask",
            "24",
            "--gateway",
            &gateway,
            "--dns-forward",
            &resolver,
            // Written when it serves.
            "--pid",
            "/proc/self/fd/1",
        ];
        Ok(Self {
            program: std::ffi::CString::new(program.as_os_str().as_bytes())?,
            args: StringArray::new(args)?,
            env: StringArray::new([""; 0])?,
            pin,
        })
    }

    /// Starts it and stays with it: its parent is this thread, with which the kernel ends it (PR_SET_PDEATHSIG).
    fn keep(
        &self,
        namespace: &OwnedFd,
        stopped: &PipeReader,
        ready: &Sender<OwnedFd>,
    ) -> Result<(), NetworkError> {
        let (says, stderr) = io::pipe().at("make", "a pipe")?;
        let (serves, stdout) = io::pipe().at("make", "a pipe")?;
        let kiln = getpid();
        let mut failure = None;
        let child = &mut || {
            failure = self.become_pasta(kiln, namespace, &stdout, &stderr).err();
            127
        };
        let (pid, pidfd) = sys::vfork(libc::CLONE_NEWNS, child).at("start", PASTA)?;
        drop((stdout, stderr));
        let said = follow(pid, &pidfd, [&says, &serves, stopped], ready).at("wait for", PASTA)?;
        match (failure, said) {
            (Some(error), _) => Err(NetworkError::Pasta { said: error.to_string() }),
            (None, Some(said)) => Err(NetworkError::Pasta { said }),
            (None, None) => Ok(()),
        }
    }

    /// Returns only if it failed.
    fn become_pasta(
        &self,
        kiln: rustix::process::Pid,
        namespace: &OwnedFd,
        stdout: &PipeWriter,
        stderr: &PipeWriter,
    ) -> io::Result<std::convert::Infallible> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(kiln) {
            // It was faster.
            return Err(Errno::SRCH.into());
        }
        mounts::pin_network(namespace, &self.pin)?;
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
        for (number, stream) in (0..).zip([null.as_fd(), stdout.as_fd(), stderr.as_fd()]) {
            sys::place(stream, number)?;
        }
        sys::close_on_exec_from(3)?;
        sys::reset_signals();
        sys::unblock_signals();
        Err(sys::exec(&self.program, &self.args, &self.env))
    }
}

/// Waits for its end, which `stopped` brings about. Returns what it said if it ended by itself.
fn follow(
    pid: Pid,
    pidfd: &OwnedFd,
    [says, serves, stopped]: [&PipeReader; 3],
    ready: &Sender<OwnedFd>,
) -> io::Result<Option<String>> {
    let mut said = Vec::new();
    let (mut silent, mut told) = (false, false);
    loop {
        let none = PollFlags::empty();
        let when = |done: bool| if done { none } else { PollFlags::IN };
        // A closed pipe would be reported again and again: what is done with is not asked about.
        let mut wanted = [
            PollFd::new(if told { stopped } else { serves }, PollFlags::IN),
            PollFd::new(if silent { stopped } else { says }, when(silent)),
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut wanted, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let [serving, saying, ended, stop] = wanted.map(|fd| fd.revents());
        if !silent && !saying.is_empty() {
            let mut buffer = [0; 1024];
            let mut reader = says;
            let count = reader.read(&mut buffer)?;
            silent = count == 0;
            said.extend_from_slice(&buffer[..count]);
            said.truncate(MOST_SAID);
            continue;
        }
        if !stop.is_empty() {
            // It may just have ended.
            _ = pidfd_send_signal(pidfd, Signal::KILL);
            waitpid(pid, None)?;
            return Ok(None);
        }
        if !ended.is_empty() {
            let status = waitpid(pid, None)?;
            let said = String::from_utf8_lossy(&said);
            // It complains of a missing log, too.
            let lines: Vec<&str> = said.lines().filter(|line| !line.contains("to syslog")).collect();
            let said = lines.join("; ");
            return Ok(Some(if said.is_empty() { format!("it ended ({status:?})") } else { said }));
        }
        if !told && !serving.is_empty() {
            told = true;
            if serving.contains(PollFlags::IN) {
                // If nobody waits any more, its end is near.
                _ = ready.send(pidfd.try_clone()?);
            }
        }
    }
}

/// Makes one in which `lo` is up. A thread has a namespace of its own until it ends; the descriptor keeps it.
fn make_namespace() -> io::Result<OwnedFd> {
    let make = || -> io::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        sys::loopback_up()?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    };
    std::thread::spawn(make).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The address that packets leave this machine from; none are sent to find out. None without a route.
fn outbound_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Documentation's addresses (RFC 5737): nobody is there.
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

/// Looks a program up as execvp(3) does.
fn find(program: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|meta| meta.is_file() && is_executable(&meta.permissions()))
    };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(is_program)
}

fn is_executable(permissions: &Permissions) -> bool {
    permissions.mode() & 0o111 != 0
}
