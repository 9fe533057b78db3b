//! Makes mounts that are attached nowhere yet, as descriptors; one of the two modules that call mount(2).
//!
//! The other, `world`, puts them in place. Everything here goes through the descriptor-based calls of Linux 5.2
//! (fsopen(2), open_tree(2)), except overlay on kernels that cannot be told of layers one by one.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt};
use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    mount, mount_change, move_mount, open_tree, unmount,
};

use crate::enter::Entered;
use crate::sys::{self, MountAttr};

mod owners;
#[cfg(test)]
mod tests;

pub use owners::show_owner;

/// Where a network namespace gets a name: a file that there is in one mount namespace only.
pub(crate) struct NetworkPin {
    /// What is covered by a file system in memory, there.
    cover: &'static Path,
    path: PathBuf,
}

impl NetworkPin {
    /// Chooses. Debian's AppArmor profile for pasta allows no other place (/etc/apparmor.d/abstractions/pasta); a machine
    /// that has no /run/user has hardly that.
    pub(crate) fn new() -> Self {
        let cover = ["/run/user", "/tmp"].map(Path::new).into_iter().find(|path| path.is_dir());
        let cover = cover.unwrap_or(Path::new("/dev/shm"));
        Self { cover, path: cover.join("0/netns/kiln") }
    }

    /// Returns the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Gives a network namespace its name in the caller's mount namespace.
pub(crate) fn pin_network(namespace: &OwnedFd, pin: &NetworkPin) -> io::Result<()> {
    let memory = tmpfs(&[("mode", "0755")], NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    move_mount(&memory, "", CWD, pin.cover, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    if let Some(parent) = pin.path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    drop(std::fs::File::create_new(&pin.path)?);
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    Ok(rustix::mount::mount_bind(source, &pin.path)?)
}

/// Attributes nearly every mount of a step has: a device node made by a step must not reach the machine's device
/// (as root there is no other barrier; docker has its device cgroup).
pub(crate) const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;

/// Longest value that fsconfig(2) takes for a string, without its end.
const MAX_FSCONFIG_STRING: usize = 255;

/// As much as mount(2) takes of its data.
const MAX_MOUNT_OPTIONS: usize = 4096;

/// Gives a read-only merged tree of layers as a directory descriptor.
///
/// `lower` is lowest first. Nothing is left to clean up but the descriptor: the mount is attached nowhere. One layer
/// is that directory itself; no layer is an empty directory.
///
/// # Errors
/// The layers cannot be opened or merged.
pub fn view(_entered: &Entered, lower: &[PathBuf]) -> Result<OwnedFd, IoError> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let [only] = lower {
        return open(only, directory, Mode::empty()).at("open", only);
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | NODEV;
    let mounted = if lower.is_empty() {
        tmpfs(&[("mode", "0755")], attributes)
    } else {
        overlay_among_threads(lower, None, attributes)
    };
    let top = lower.last().map_or(Path::new("/"), PathBuf::as_path);
    let mounted =
        mounted.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<Said>()) {
            Some(Said { error, said }) => IoError::new(format!("merge layers ({said}) up to"), top, error),
            None => IoError::new("merge layers up to", top, &error),
        })?;
    // The mount's own descriptor is a mere path; this one can be read, and keeps the mount.
    openat(&mounted, ".", directory, Mode::empty()).at("open", top)
}

/// Cuts the process's mounts off from the ones they were copied from, in both directions.
pub(crate) fn make_all_private() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// A stack of layers, lowest first, with an upper and a work directory if it can be written to. The caller is alone in
/// its mount namespace.
///
/// The options are the store's format: `user.overlay.*` attributes, which work without privileges (Linux 5.11), and
/// `volatile` (5.10), which leaves out the syncfs(2) at the end of each step.
pub(crate) fn overlay(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let (lower, _below) = few(lower)?;
    let names = Names::of(&lower, upper)?;
    match overlay_by_layer(&names, attributes) {
        Err(OverlayError::NoLayerOption) => overlay_by_options(&names, attributes),
        Err(OverlayError::Failed(error)) => Err(error),
        Ok(mounted) => Ok(mounted),
    }
}

/// Tries whether overlay can be mounted with its upper directory in `dir`, which is empty, on the store's file system; what
/// it leaves there is the caller's to remove.
///
/// # Errors
/// It cannot: why.
pub fn try_overlay(_entered: &Entered, dir: &Path) -> Result<(), IoError> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.join(name));
    for path in [&lower, &upper, &work] {
        std::fs::create_dir(path).at("create", path)?;
    }
    match overlay_among_threads(&[lower], Some((&upper, &work)), NODEV) {
        Ok(_) => Ok(()),
        Err(error) => Err(explained("mount overlay", dir, &error)),
    }
}

/// An error of overlay's, with what the kernel said besides.
fn explained(op: &str, path: &Path, error: &io::Error) -> IoError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Said>()) {
        Some(Said { error, said }) => IoError::new(format!("{op} ({said}) in"), path, error),
        None => IoError::new(format!("{op} in"), path, error),
    }
}

/// The same for a caller with threads in its mount namespace.
fn overlay_among_threads(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let (lower, _below) = few(lower)?;
    let lower = &lower;
    match overlay_by_layer(&Names::of(lower, upper)?, attributes) {
        Err(OverlayError::NoLayerOption) => {}
        Err(OverlayError::Failed(error)) => return Err(error),
        Ok(mounted) => return Ok(mounted),
    }
    let alone = || {
        // This affects the new thread alone. Layers must be opened in the namespace in which they are mounted.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        overlay_by_options(&Names::of(lower, upper)?, attributes)
    };
    std::thread::scope(|scope| scope.spawn(alone).join())
        .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
}

/// As many layers as overlay takes: OVL_MAX_STACK in
/// <https://elixir.bootlin.com/linux/latest/source/fs/overlayfs/params.h>.
const MAX_LAYERS: usize = 500;

/// Makes one of the lowest layers if there are more than overlay takes: overlays may be stacked once. Only at the bottom,
/// for a deletion has no effect beyond the overlay that it is in. So there may be twice as many; what is held is needed
/// until the layers are mounted.
fn few(lower: &[PathBuf]) -> io::Result<(Vec<PathBuf>, Option<OwnedFd>)> {
    if lower.len() <= MAX_LAYERS {
        return Ok((lower.to_vec(), None));
    }
    let too_many = |why: &str| {
        let error = io::Error::from_raw_os_error(libc::E2BIG);
        let said = format!("{} layers are too many {why}", lower.len());
        io::Error::new(error.kind(), Said { error, said })
    };
    if !crate::world::merges_detached() {
        return Err(too_many("for Linux before 6.15"));
    }
    let (lowest, rest) = lower.split_at(MAX_LAYERS);
    if rest.len() >= MAX_LAYERS {
        return Err(too_many("for overlay; put several commands into one RUN"));
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | NODEV;
    let below = match overlay_by_layer(&Names::of(lowest, None)?, attributes) {
        Ok(below) => below,
        Err(OverlayError::Failed(error)) => return Err(error),
        Err(OverlayError::NoLayerOption) => return Err(too_many("for this kernel")),
    };
    let name = PathBuf::from(format!("/proc/self/fd/{}", below.as_raw_fd()));
    Ok((std::iter::once(name).chain(rest.iter().cloned()).collect(), Some(below)))
}

/// A mount of the directory or file `path` of the host and all that is mounted below: in a user namespace the kernel
/// refuses to show a directory without what covers parts of it.
pub(crate) fn bind(path: &Path, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let tree = open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
    )?;
    set(tree.as_fd(), true, attributes)?;
    Ok(tree)
}

/// A mount of what `name` is in `dir`, without what is mounted below it.
pub(crate) fn bind_at(
    dir: impl AsFd,
    name: impl AsRef<Path>,
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(dir, name.as_ref(), flags)?;
    set(tree.as_fd(), false, attributes)?;
    Ok(tree)
}

/// Adds attributes to a mount.
pub(crate) fn set(mounted: BorrowedFd<'_>, recursive: bool, attributes: MountAttrFlags) -> io::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    sys::mount_setattr(
        mounted,
        recursive,
        MountAttr { set: u64::from(attributes.bits()), ..MountAttr::default() },
    )
}

/// Takes attributes from a mount that this namespace made.
pub(crate) fn clear(mounted: impl AsFd, attributes: MountAttrFlags) -> io::Result<()> {
    let attributes = MountAttr { clear: u64::from(attributes.bits()), ..MountAttr::default() };
    sys::mount_setattr(mounted.as_fd(), false, attributes)
}

/// A fresh tmpfs.
pub(crate) fn tmpfs(options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    fresh("tmpfs", options, attributes)
}

/// A fresh file system of the kernel's: proc, sysfs, devpts, mqueue.
pub(crate) fn fresh(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&fs, *key, *value)?;
    }
    fsconfig_create(&fs)?;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// How overlay is told of its directories: by their paths, or by a descriptor's where a path is too long for
/// fsconfig(2) or holds what overlay's options give a meaning.
struct Names {
    /// Topmost first.
    lower: Vec<PathBuf>,
    upper: Option<(PathBuf, PathBuf)>,
    _held: Vec<OwnedFd>,
}

impl Names {
    fn of(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> io::Result<Self> {
        let mut held = Vec::new();
        let mut name = |path: &Path| -> io::Result<PathBuf> {
            let bytes = path.as_os_str().as_encoded_bytes();
            if bytes.len() <= MAX_FSCONFIG_STRING && !bytes.iter().any(|byte| b"\\:,".contains(byte)) {
                return Ok(path.to_owned());
            }
            let fd = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
            held.push(fd);
            Ok(name.into())
        };
        let lower = lower.iter().rev().map(|path| name(path)).collect::<io::Result<_>>()?;
        let upper = upper.map(|(upper, work)| io::Result::Ok((name(upper)?, name(work)?))).transpose()?;
        Ok(Self { lower, upper, _held: held })
    }
}

enum OverlayError {
    /// The kernel is older than 6.7 and has no `lowerdir+`.
    NoLayerOption,
    Failed(io::Error),
}

impl From<Errno> for OverlayError {
    fn from(error: Errno) -> Self {
        Self::Failed(error.into())
    }
}

fn overlay_by_layer(names: &Names, attributes: MountAttrFlags) -> Result<OwnedFd, OverlayError> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let said = |error: Errno| OverlayError::Failed(with_log(&fs, error));
    // What df(1) names it by; it leaves out what has no name.
    fsconfig_set_string(&fs, "source", "overlay")?;
    for (number, layer) in names.lower.iter().enumerate() {
        match fsconfig_set_string(&fs, "lowerdir+", layer) {
            Err(Errno::INVAL) if number == 0 => return Err(OverlayError::NoLayerOption),
            other => other.map_err(said)?,
        }
    }
    if let Some((upper, work)) = &names.upper {
        fsconfig_set_string(&fs, "upperdir", upper).map_err(said)?;
        fsconfig_set_string(&fs, "workdir", work).map_err(said)?;
        fsconfig_set_flag(&fs, "volatile").map_err(said)?;
    }
    fsconfig_set_flag(&fs, "userxattr").map_err(said)?;
    fsconfig_create(&fs).map_err(said)?;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The same by one option string of at most a page: Linux 5.11 to 6.6. Such a mount has to be attached first; it is
/// for a moment, to a place that every machine has and that is not needed meanwhile. To have room for as many layers as
/// overlay takes, they are named by the numbers of descriptors, seen from the directory of those.
fn overlay_by_options(names: &Names, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    const PLACE: &str = "/proc";
    let mut held = Vec::new();
    let mut number = |path: &PathBuf| -> io::Result<String> {
        held.push(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
        Ok(held.last().map_or(-1, AsRawFd::as_raw_fd).to_string())
    };
    let lower = names.lower.iter().map(&mut number).collect::<io::Result<Vec<_>>>()?;
    let mut options = format!("userxattr,lowerdir={}", lower.join(":"));
    if let Some((upper, work)) = &names.upper {
        options += &format!(",upperdir={},workdir={},volatile", number(upper)?, number(work)?);
    }
    if options.len() >= MAX_MOUNT_OPTIONS {
        // The kernel would cut it off, and leave out layers without a word.
        let error = io::Error::from_raw_os_error(libc::E2BIG);
        let said = format!("{} layers are too many for Linux before 6.7", lower.len());
        return Err(io::Error::new(error.kind(), Said { error, said }));
    }
    let options = std::ffi::CString::new(options)?;
    rustix::process::chdir("/proc/self/fd")?;
    let mounted = mount("overlay", PLACE, "overlay", MountFlags::empty(), Some(options.as_c_str()));
    rustix::process::chdir("/")?;
    mounted?;
    let taken = bind_at(CWD, PLACE, attributes);
    unmount(PLACE, UnmountFlags::DETACH)?;
    taken
}

/// Adds what the file system wrote into its context's log: fsopen(2), "message retrieval".
fn with_log(fs: &OwnedFd, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    let mut buffer = [0; 1024];
    let mut said = Vec::new();
    if let Ok(fs) = fs.try_clone() {
        let mut log = std::fs::File::from(fs);
        while let Ok(length) = log.read(&mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..length]);
            said.push(line.trim_end().trim_start_matches(['e', 'w', 'i', ' ']).to_owned());
        }
    }
    if said.is_empty() { error } else { io::Error::new(error.kind(), Said { error, said: said.join("; ") }) }
}

/// An errno, and what the kernel said of it.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) error: io::Error,
    pub(crate) said: String,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.error, self.said)
    }
}

impl std::error::Error for Said {}
