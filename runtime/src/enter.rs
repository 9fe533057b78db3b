//! Enters a user and a mount namespace: once, before any thread exists.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_core::{Emulator, IoError, IoResultExt, Resources};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::ForkResult;
use rustix::process::{getegid, geteuid, getpid};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::cgroup::{Group, Groups};
use crate::error::{EnterError, Obstacle, RunError};
use crate::ids::{self, IdMode, IdRange};
use crate::network::{NetworkError, PrivateNetwork};
use crate::nursery::Nursery;
use crate::proc::Proc;
use crate::{files, mounts, notify, sys};
use refused::{refused, refused_by, refused_with};

mod refused;

/// What is put around a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Namespaces of its own, in a mount namespace of kiln's.
    Namespaces,
    /// Only another root directory: nothing keeps the step from what kiln may do. For machines that give no namespaces.
    Chroot,
}

/// What to ask for.
#[derive(Debug, Clone, Default)]
pub struct EnterOptions {
    /// Whether to use a single id even where more could be had; for comparing rungs of the ladder.
    pub single_id: bool,
    /// Namespaces or nothing; or a chroot, also where namespaces could be had. The best that there is, if not given.
    pub isolation: Option<Isolation>,
    /// Which /proc steps have, with namespaces; for comparing rungs of the ladder. The best that there is, if not given.
    pub proc: Option<Proc>,
}

/// Proof that the process is in its own user and mount namespace, or can do without.
#[derive(Debug)]
pub struct Entered {
    ids: IdMode,
    reason: String,
    raise: Option<String>,
    /// In a chroot, why it is no better.
    bare: Option<Missing>,
    proc: Option<Proc>,
    /// Who started it, if in the namespace that was entered this user is root.
    pub(crate) caller: Option<Caller>,
    /// Whether the system calls that a single id makes impossible are answered in its place.
    answers: bool,
    /// Started for the first step.
    nursery: OnceLock<Nursery>,
    /// Started for the first step of a foreign architecture, one for each emulator and network: whether it is the private
    /// one.
    emulating: Mutex<BTreeMap<(Emulator, bool), Arc<Nursery>>>,
    /// Made for the first step that wants it.
    network: OnceLock<Result<PrivateNetwork, NetworkError>>,
    /// Looked for by the first step with limits.
    groups: OnceLock<Result<Groups, String>>,
}

impl Entered {
    /// Returns which ids there are.
    pub fn ids(&self) -> &IdMode {
        &self.ids
    }

    /// Returns why it is these, in a person's words.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the command that would give more ids, if there is one.
    pub fn raise(&self) -> Option<&str> {
        self.raise.as_deref()
    }

    /// Returns what is put around a step.
    pub fn isolation(&self) -> Isolation {
        if self.bare.is_some() { Isolation::Chroot } else { Isolation::Namespaces }
    }

    /// Returns, where steps run in a chroot, why there is nothing better, and the command that would change it.
    pub fn why_bare(&self) -> Option<(&str, Option<&str>)> {
        self.bare.as_ref().map(|bare| (bare.reason.as_str(), bare.raise.as_deref()))
    }

    pub(crate) fn proc(&self) -> Option<Proc> {
        self.proc
    }

    /// Returns whether steps have all ids though there is a single one: kiln answers their system calls.
    pub fn answers(&self) -> bool {
        self.answers && self.isolation() == Isolation::Namespaces
    }

    /// Gives the process that forks init processes.
    pub(crate) fn nursery(&self) -> Result<&Nursery, RunError> {
        if let Some(nursery) = self.nursery.get() {
            return Ok(nursery);
        }
        let nursery = Nursery::start(None, None)?;
        // If another thread was faster, this one ends again.
        Ok(self.nursery.get_or_init(|| nursery))
    }

    /// Gives the one whose steps run by an emulator.
    pub(crate) fn emulating(
        &self,
        emulator: &Emulator,
        network: Option<BorrowedFd<'_>>,
    ) -> Result<Arc<Nursery>, RunError> {
        let key = (emulator.clone(), network.is_some());
        let mut all = self.emulating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nursery) = all.get(&key) {
            return Ok(Arc::clone(nursery));
        }
        let nursery = Arc::new(Nursery::start(Some(emulator), network)?);
        all.insert(key, Arc::clone(&nursery));
        Ok(nursery)
    }

    /// Makes the private network if there is none yet: for who wants to know beforehand whether there can be one.
    ///
    /// # Errors
    /// pasta is not installed, or does not work here.
    pub fn make_private_network(&self) -> Result<(), NetworkError> {
        self.private_network().map(drop)
    }

    pub(crate) fn private_network(&self) -> Result<&PrivateNetwork, NetworkError> {
        self.network.get_or_init(PrivateNetwork::start).as_ref().map_err(Clone::clone)
    }

    /// Returns why the limits of steps are kept by watching them, if they are.
    pub fn limits_are_watched(&self) -> Option<&str> {
        self.groups().as_ref().err().map(String::as_str)
    }

    /// Makes a control group with limits for a step's init, if there are limits to keep and groups can be made.
    pub(crate) fn group(
        &self,
        resources: &Resources,
        init: impl Fn() -> Result<u32, IoError>,
    ) -> Result<Option<Group>, IoError> {
        if !resources.wants_group() {
            return Ok(None);
        }
        match self.groups() {
            Ok(groups) => Ok(Some(groups.make(resources, init()?).at("make", "a control group")?)),
            Err(_) => Ok(None),
        }
    }

    fn groups(&self) -> &Result<Groups, String> {
        self.groups.get_or_init(Groups::find)
    }

    fn new(ids: IdMode, reason: impl Into<String>, raise: Option<String>) -> Self {
        let mut reason = reason.into();
        let mut answers = false;
        if ids == IdMode::Single {
            match notify::available() {
                Ok(()) => answers = true,
                Err(obstacle) => reason = format!("{reason}; {obstacle}"),
            }
        }
        Self {
            ids,
            reason,
            raise,
            bare: None,
            proc: None,
            caller: None,
            answers,
            nursery: OnceLock::new(),
            emulating: Mutex::default(),
            network: OnceLock::new(),
            groups: OnceLock::new(),
        }
    }
}

/// Enters a mount namespace, and a user namespace where root is missing: docs/rootless.md tells the ladder.
///
/// Call it before any thread is started; those that come later share the namespaces. What is mounted from now on is
/// seen by nobody else and goes when the process goes.
///
/// # Errors
/// The process has threads, or the kernel allows no user namespace; the error says what would change that.
pub fn enter(options: &EnterOptions) -> Result<Entered, EnterError> {
    let mut entered = best(options)?;
    entered.proc = options.proc;
    Ok(entered)
}

fn best(options: &EnterOptions) -> Result<Entered, EnterError> {
    let threads = fs::read_dir("/proc/self/task").at("list", "/proc/self/task")?.count();
    if threads != 1 {
        return Err(EnterError::Threads { threads });
    }
    files::raise();
    if options.isolation == Some(Isolation::Chroot) {
        return bare(Missing { reason: "a chroot was asked for".to_owned(), raise: None });
    }
    let is_root = geteuid().is_root() && !options.single_id;
    if is_root && may_mount() {
        return match unshare(CloneFlags::CLONE_NEWNS)
            .map_err(io::Error::from)
            .and_then(|()| mounts::make_all_private())
        {
            Ok(()) => Ok(as_root(&own_map("uid")?)),
            Err(error) => bare_or(refused_by(&error), options),
        };
    }
    // Root in a container. Tried in another process: there is no way back out of a user namespace, and one in which
    // nothing can be mounted is worth nothing (AppArmor's profile for docker allows the one and not the other).
    if is_root
        && may_do_without()
        && let Err(error) =
            in_child(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS, mounts::make_all_private)
    {
        return bare_or(refused_by(&error), options);
    }
    let caller = Caller { uid: geteuid().as_raw(), gid: getegid().as_raw() };
    let mut entered = with_user_namespace(options)?;
    // Root stays root in it.
    entered.caller = Some(caller).filter(|caller| caller.uid != 0);
    mounts::make_all_private().map_err(|error| refused_by(&error))?;
    Ok(entered)
}

/// Goes on without namespaces, if the process has what that takes.
fn bare_or(error: EnterError, options: &EnterOptions) -> Result<Entered, EnterError> {
    if !may_do_without() || options.isolation == Some(Isolation::Namespaces) {
        return Err(error);
    }
    let raise = match &error {
        EnterError::NoUserNamespaces { obstacle, .. } => obstacle.remedy(),
        _ => None,
    };
    bare(Missing { reason: error.to_string(), raise })
}

/// Goes on without namespaces.
fn bare(why: Missing) -> Result<Entered, EnterError> {
    if !geteuid().is_root() || !may_do_without() {
        return Err(EnterError::NoChroot);
    }
    let mut entered = as_root(&own_map("uid")?);
    entered.bare = Some(why);
    Ok(entered)
}

/// Whether the process has what a step in a chroot needs.
fn may_do_without() -> bool {
    let needed = CapabilitySet::SYS_CHROOT
        | CapabilitySet::MKNOD
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP
        | CapabilitySet::KILL;
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Tries something in a child process, in namespaces of its own.
pub(crate) fn in_child(namespaces: CloneFlags, test: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let errno =
        |result: io::Result<()>| result.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
    let mut found = libc::EIO;
    let (pid, _) = sys::vfork(namespaces.bits(), &mut || {
        found = errno(test());
        0
    })?;
    nix::sys::wait::waitpid(pid, None)?;
    if found == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(found)) }
}

/// Root of the machine or of a namespace that was made before.
fn as_root(map: &[IdRange]) -> Entered {
    if ids::is_everything(map) {
        return Entered::new(IdMode::Root, "running as root", None);
    }
    if map.iter().map(|range| u64::from(range.count)).sum::<u64>() > 1 {
        return Entered::new(IdMode::Mapped, "root of a user namespace with a range of ids", None);
    }
    let raise = "run kiln outside of that namespace, as the ordinary user".to_owned();
    Entered::new(IdMode::Single, "root of a user namespace with a single id", Some(raise))
}

/// What the process that stays outside is to do.
enum Plan {
    /// Write maps in which every id is itself: root that lacks the right to mount, as in a container.
    Identity { uids: String, gids: String },
    /// Run newuidmap(1) and newgidmap(1).
    Subordinate { uids: Vec<IdRange>, gids: Vec<IdRange> },
}

fn with_user_namespace(options: &EnterOptions) -> Result<Entered, EnterError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let plan = if options.single_id { Err(asked_for_single()) } else { plan(uid, gid)? };
    let both = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    let missing = match plan {
        Ok(plan) => {
            let helper = Helper::start(&plan)?;
            unshare(both).map_err(refused)?;
            match (helper.finish()?, plan) {
                (None, Plan::Identity { .. }) => {
                    let reason = "root without the right to mount, in a user namespace with the same ids";
                    return Ok(Entered::new(IdMode::Mapped, reason, None));
                }
                (None, Plan::Subordinate { uids, gids }) => {
                    let reason = "subordinate ids from /etc/subuid and /etc/subgid";
                    return Ok(Entered::new(IdMode::Subordinate { uids, gids }, reason, None));
                }
                (Some(missing), _) => missing,
            }
        }
        Err(missing) => {
            unshare(both).map_err(refused)?;
            missing
        }
    };
    map_single(uid, gid)?;
    Ok(Entered::new(IdMode::Single, missing.reason, missing.raise))
}

/// Why there is nothing better.
#[derive(Debug)]
struct Missing {
    reason: String,
    raise: Option<String>,
}

fn asked_for_single() -> Missing {
    Missing { reason: "a single id was asked for".to_owned(), raise: None }
}

/// Decides how more than one id can be had.
fn plan(uid: u32, gid: u32) -> Result<Result<Plan, Missing>, IoError> {
    if uid == 0
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETUID))
    {
        let (uids, gids) = (own_map("uid")?, own_map("gid")?);
        if uids.len() + gids.len() > 2 || uids.iter().chain(&gids).all(|range| range.count > 1) {
            return Ok(Ok(Plan::Identity { uids: ids::identity_of(&uids), gids: ids::identity_of(&gids) }));
        }
    }
    let name = user_name(uid);
    let [subuid, subgid] =
        ["/etc/subuid", "/etc/subgid"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let ranges = |text: &str| ids::subordinate_ranges(text, name.as_deref(), uid);
    let (uids, gids) = (ranges(&subuid), ranges(&subgid));
    for (file, found) in [("/etc/subuid", &uids), ("/etc/subgid", &gids)] {
        if found.is_empty() {
            let user = name.unwrap_or_else(|| uid.to_string());
            let first = ids::free_block(&[&subuid, &subgid], 65_536);
            let last = first + 65_535;
            return Ok(Err(Missing {
                reason: format!("{file} has no ids for {user}"),
                raise: Some(format!(
                    "sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}"
                )),
            }));
        }
    }
    Ok(Ok(Plan::Subordinate { uids: ids::map_of(uid, &uids), gids: ids::map_of(gid, &gids) }))
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    crate::user::name_of(&passwd, uid).map(str::to_owned)
}

/// A forked process that stays outside of the new user namespace: only from there can more than one id be mapped.
struct Helper {
    pid: nix::unistd::Pid,
    go: io::PipeWriter,
    answer: io::PipeReader,
}

impl Helper {
    fn start(plan: &Plan) -> Result<Self, IoError> {
        let (mut wait, go) = io::pipe().at("make", "a pipe")?;
        let (answer, mut say) = io::pipe().at("make", "a pipe")?;
        let target = getpid();
        match sys::fork_single_threaded().at("fork", "the id mapper")? {
            ForkResult::Parent { child } => Ok(Self { pid: child, go, answer }),
            ForkResult::Child => {
                drop((go, answer));
                let mut byte = [0];
                // No byte: the parent could not unshare, or is gone.
                if io::Read::read_exact(&mut wait, &mut byte).is_ok() {
                    let missing = plan.carry_out(target.as_raw_pid()).err().unwrap_or_default();
                    let _ = io::Write::write_all(&mut say, missing.as_bytes());
                }
                sys::exit_now(0)
            }
        }
    }

    /// Lets it work; returns why there are no maps now, if so.
    fn finish(mut self) -> Result<Option<Missing>, IoError> {
        io::Write::write_all(&mut self.go, b"!").at("start", "the id mapper")?;
        let mut missing = String::new();
        io::Read::read_to_string(&mut self.answer, &mut missing).at("read from", "the id mapper")?;
        nix::sys::wait::waitpid(self.pid, None).at("wait for", "the id mapper")?;
        if missing.is_empty() {
            return Ok(None);
        }
        let raise = missing.contains("not found").then(|| "sudo apt-get install uidmap".to_owned());
        Ok(Some(Missing { reason: missing, raise }))
    }
}

impl Plan {
    fn carry_out(&self, pid: i32) -> Result<(), String> {
        match self {
            Self::Identity { uids, gids } => {
                [("gid", gids), ("uid", uids)].into_iter().try_for_each(|(kind, map)| {
                    let path = format!("/proc/{pid}/{kind}_map");
                    fs::write(&path, map).map_err(|error| format!("{path} cannot be written: {error}"))
                })
            }
            Self::Subordinate { uids, gids } => {
                // Both at once; each takes milliseconds to find its user.
                let started = [("newuidmap", uids), ("newgidmap", gids)].map(|(tool, map)| {
                    let mut command = Command::new(tool);
                    command.arg(pid.to_string()).args(ids::map_arguments(map));
                    (
                        tool,
                        command
                            .stdout(std::process::Stdio::null())
                            .stderr(std::process::Stdio::piped())
                            .spawn(),
                    )
                });
                let results = started.map(|(tool, child)| {
                    let output =
                        child.and_then(std::process::Child::wait_with_output).map_err(|error| match error
                            .kind()
                        {
                            io::ErrorKind::NotFound => format!("{tool} is not found in PATH"),
                            _ => format!("{tool} cannot be run: {error}"),
                        })?;
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    if output.status.success() { Ok(()) } else { Err(format!("{tool} failed: {said}")) }
                });
                results.into_iter().collect()
            }
        }
    }
}

/// Maps the caller to 0. What a helper has mapped before it failed stays.
fn map_single(uid: u32, gid: u32) -> Result<(), EnterError> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).or_else(|error| {
            let mapped = !ids::parse_map(&fs::read_to_string(&path).unwrap_or_default()).is_empty();
            if mapped { Ok(()) } else { Err(error) }
        })
    };
    // An unprivileged process may only map its group after it gave up setgroups(2): user_namespaces(7).
    if own_map("gid")?.is_empty() {
        write("setgroups", "deny").map_err(|error| refused_by(&error))?;
    }
    write("uid_map", &format!("0 {uid} 1\n")).map_err(|error| match uid {
        // Root of the namespace above may be mapped only by who has CAP_SETFCAP there: user_namespaces(7).
        0 => refused_with(&error, Obstacle::RootWithoutCapabilities),
        _ => refused_by(&error),
    })?;
    write("gid_map", &format!("0 {gid} 1\n")).map_err(|error| refused_by(&error))
}

fn own_map(kind: &str) -> Result<Vec<IdRange>, IoError> {
    let path = format!("/proc/self/{kind}_map");
    Ok(ids::parse_map(&fs::read_to_string(&path).at("read", &path)?))
}

fn may_mount() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}
