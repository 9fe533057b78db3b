//! Puts a step's world together and moves into it; one of the two modules that call mount(2).
//!
//! Runs in the init process, which is alone in its mount namespace: everything is attached there and nowhere else, so
//! the kernel takes it all away when the last process of the step is gone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_core::{MountSpec, MountSpecKind, Rootfs, RunSpec, STAT_XATTR, Secret, Security, StatRecord};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags, mkdirat, openat, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{Gid, Uid};

use crate::error::{InitFailure, Stage, StageExt};
use crate::ids::IdMode;
use crate::kernel;
use crate::mounts::{self, NODEV};
use crate::network::names;
use crate::proc::{self, Proc};
use crate::streams::Streams;
use crate::stubs::Stubs;
use place::{Kind, Places, kind_of, open_in};

pub(crate) mod place;
mod points;

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// Bytes; docker's.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;

pub(crate) const DEVICES: &str = include_str!("../data/devices");
const MASKED_PATHS: &str = include_str!("../data/masked_paths");
const READONLY_PATHS: &str = include_str!("../data/readonly_paths");

const APT_SINGLE_ID: &str = include_str!("../data/apt_single_id.conf");
const APT_DIRECTORY: &str = "/etc/apt/apt.conf.d";

/// The entries of one of the files in data/: a word a line, `#` for comments.
pub(crate) fn entries(data: &str) -> impl Iterator<Item = &str> {
    data.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().next())
}

/// Makes the world of `spec` and moves the process into it. What was made in the root file system to mount something on
/// comes back.
pub(crate) fn enter(
    spec: &RunSpec,
    ids: &IdMode,
    answered: bool,
    host: Option<IpAddr>,
    proc: Option<Proc>,
) -> Result<(Stubs, Option<Streams>), InitFailure> {
    let mut world = World::new(spec)?;
    let streams = world.system(spec, host, proc)?;
    if *ids == IdMode::Single && !answered {
        world.single_id()?;
    }
    for mount in &spec.mounts {
        world.mount(mount, ids, answered)?;
    }
    if spec.security == Security::Sandbox {
        world.mask()?;
    }
    if matches!(spec.rootfs, Rootfs::Tree { .. }) {
        world.places.restore_times().stage(Stage::MountPoint, "/")?;
    }
    Ok((world.pivot(spec.read_only)?, streams))
}

/// Whose a file is to be.
#[derive(Clone, Copy)]
enum Owner {
    Real(u32, u32),
    /// By a record, where there is a single id.
    Recorded(u32, u32),
}

struct World {
    places: Places,
    /// A tmpfs inside; what needs a small file or an empty directory takes it from here.
    dev: OwnedFd,
    /// Names in it that go before the step starts, and how they are removed.
    temporaries: Vec<(String, AtFlags)>,
    /// A directory of the host's that nobody looks into: the root's mount holds its own reference.
    staging: PathBuf,
}

impl World {
    /// Mounts the root file system and its /dev.
    fn new(spec: &RunSpec) -> Result<Self, InitFailure> {
        let (root, staging) = match &spec.rootfs {
            Rootfs::Overlay { lower, upper, work } => {
                let mount_points = points::mount_points(spec).stage(Stage::MountPoint, "/")?;
                (mount_root(lower, (upper, work), &mount_points), work)
            }
            Rootfs::Tree { path } => (mounts::bind_at(CWD, path, NODEV), path),
        };
        let changes = spec.rootfs.changes();
        let root = root.stage(Stage::MountRoot, changes)?;
        // Over the host's root, where nothing sees it until the process moves in.
        attach_at(&root, Path::new("/")).stage(Stage::MountRoot, changes)?;
        let mut places = Places::new(root).stage(Stage::MountRoot, changes)?;
        let dev = mounts::tmpfs(&[("mode", "0755"), ("size", "65536k")], NOSUID | NODEV | NOEXEC);
        let dev = dev.stage(Stage::MountSystem, "/dev")?;
        let target = places.find_or_make("/dev", Kind::Directory).stage(Stage::MountPoint, "/dev")?;
        attach(&dev, &target).stage(Stage::MountSystem, "/dev")?;
        Ok(Self { places, dev, temporaries: Vec::new(), staging: staging.clone() })
    }

    /// /proc, /sys, /dev and the files of /etc that tell of the network.
    fn system(
        &mut self,
        spec: &RunSpec,
        host: Option<IpAddr>,
        proc: Option<Proc>,
    ) -> Result<Option<Streams>, InitFailure> {
        let (which, proc) = proc::mount(proc).stage(Stage::MountSystem, "/proc")?;
        self.attach_system(Ok(proc), "/proc", Kind::Directory)?;
        self.attach_system(sysfs(spec.network.is_isolated(), spec.security), "/sys", Kind::Directory)?;
        let streams = self.devices(spec.machine.shm_size, which)?;
        let hosts = names::hosts(&spec.machine.hosts, spec.network, host);
        let hosts = self.file(&self::hosts(&spec.hostname, &hosts), 0o644);
        self.attach_system(hosts, "/etc/hosts", Kind::File)?;
        // A machine without one has nothing to tell.
        let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resolv = names::resolv_conf(&resolv, spec.network, host, &spec.resolver);
        let resolv = self.file(&resolv, 0o644);
        self.attach_system(resolv, "/etc/resolv.conf", Kind::File)?;
        Ok(streams)
    }

    fn devices(&mut self, shm_size: Option<u64>, proc: Proc) -> Result<Option<Streams>, InitFailure> {
        let minimal = proc == Proc::Minimal;
        let streams = minimal.then(|| Streams::new(&self.dev)).transpose();
        let streams = streams.stage(Stage::MountSystem, "/dev/stdout")?;
        for name in entries(DEVICES) {
            let path = Path::new("/dev").join(name);
            let node = mounts::bind(&path, NOSUID | NOEXEC).stage(Stage::MountSystem, &path)?;
            let target = self.dev_file(name, 0o666).stage(Stage::MountPoint, &path)?;
            attach(&node, &target.into()).stage(Stage::MountSystem, &path)?;
        }
        let links = [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
        ];
        for (name, target) in links.into_iter().take(if minimal { 1 } else { links.len() }) {
            symlinkat(target, &self.dev, name).stage(Stage::MountSystem, Path::new("/dev").join(name))?;
        }
        // Group 5 owns terminals, where there is a group 5.
        let modes = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
        let pts = mounts::fresh("devpts", &modes, NOSUID | NOEXEC)
            .or_else(|_| mounts::fresh("devpts", &modes[..2], NOSUID | NOEXEC));
        let shm_size = shm_size.unwrap_or(DEFAULT_SHM_SIZE).to_string();
        let shm = mounts::tmpfs(&[("mode", "1777"), ("size", &shm_size)], NOSUID | NODEV | NOEXEC);
        self.attach_in_dev(pts, "pts")?;
        self.attach_in_dev(shm, "shm")?;
        match mounts::fresh("mqueue", &[], NOSUID | NODEV | NOEXEC) {
            // A kernel without message queues.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            mqueue => self.attach_in_dev(mqueue, "mqueue")?,
        }
        Ok(streams)
    }

    /// What lets a package manager work that would otherwise change its user.
    fn single_id(&mut self) -> Result<(), InitFailure> {
        if self.places.find(APT_DIRECTORY).stage(Stage::MountSystem, APT_DIRECTORY)?.is_none() {
            return Ok(());
        }
        let settings = self.file(APT_SINGLE_ID, 0o644);
        self.attach_system(settings, &format!("{APT_DIRECTORY}/99kiln-single-id"), Kind::File)
    }

    /// One of the step's own mounts.
    fn mount(&mut self, mount: &MountSpec, ids: &IdMode, answered: bool) -> Result<(), InitFailure> {
        let target = &mount.target;
        let mounted = match &mount.kind {
            MountSpecKind::Bind { source, read_only } => {
                let attributes = if *read_only { NODEV | RDONLY } else { NODEV };
                mounts::bind(source, attributes).stage(Stage::Mount, source)?
            }
            MountSpecKind::Layers { lower, path, scratch } => self.layers(lower, path, scratch.as_ref())?,
            MountSpecKind::Scratch { source, scratch: (upper, work) } => {
                let lower = std::slice::from_ref(source);
                mounts::overlay(lower, Some((upper, work)), NODEV).stage(Stage::Mount, source)?
            }
            MountSpecKind::Tmpfs { size } => {
                let size = size.map(|size| size.to_string());
                let mut options = vec![("mode", "1777")];
                options.extend(size.as_deref().map(|size| ("size", size)));
                mounts::tmpfs(&options, NOSUID | NODEV).stage(Stage::Mount, target)?
            }
            MountSpecKind::File { content, mode } => self.file(content, *mode).stage(Stage::Mount, target)?,
            MountSpecKind::Secret { content, mode, uid, gid } => {
                let owner = match *ids {
                    IdMode::Single if answered => Owner::Recorded(*uid, *gid),
                    IdMode::Single => Owner::Real(0, 0),
                    _ => Owner::Real(*uid, *gid),
                };
                self.secret(content, *mode, owner).stage(Stage::Mount, target)?
            }
        };
        let kind = kind_of(&mounted).stage(Stage::Mount, target)?;
        self.attach_as(&mounted, target, kind, Stage::Mount)
    }

    /// A path inside a stack of layers. Part of a mount can only be taken from one that is attached (before Linux 6.15).
    fn layers(
        &self,
        lower: &[PathBuf],
        path: &str,
        scratch: Option<&(PathBuf, PathBuf)>,
    ) -> Result<OwnedFd, InitFailure> {
        let top =
            lower.last().map_or_else(|| PathBuf::from(path), |top| top.join(path.trim_start_matches('/')));
        let attributes = if scratch.is_some() { NODEV } else { NODEV | RDONLY };
        let whole = match (lower, scratch) {
            ([], Some((upper, _))) => mounts::bind(upper, attributes),
            (_, Some((upper, work))) => mounts::overlay(lower, Some((upper, work)), attributes),
            ([], None) => mounts::tmpfs(&[("mode", "0755")], attributes),
            ([only], None) => mounts::bind(only, attributes),
            (_, None) => mounts::overlay(lower, None, attributes),
        };
        let whole = whole.stage(Stage::Mount, &top)?;
        if path == "/" {
            return Ok(whole);
        }
        self.part(&whole, path, attributes).stage(Stage::Mount, &top)
    }

    /// A file in memory that is nowhere else, and that only its mount point has a name for.
    fn secret(&self, content: &Secret, mode: u32, owner: Owner) -> io::Result<OwnedFd> {
        const NAME: &str = "secret";
        let attributes =
            NOSUID | NODEV | RDONLY | if mode & 0o111 == 0 { NOEXEC } else { MountAttrFlags::empty() };
        let memory = mounts::tmpfs(&[("mode", "0700")], NOSUID | NODEV)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&memory, NAME, flags, Mode::empty())?);
        file.write_all(content.bytes())?;
        match owner {
            Owner::Real(uid, gid) => {
                rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            Owner::Recorded(uid, gid) => {
                let record = StatRecord { uid, gid, mode: 0o100_000 | mode, device: (0, 0) }.to_string();
                // Before Linux 6.6 files in memory have no such attributes; then it is root's.
                let _ = rustix::fs::fsetxattr(&file, STAT_XATTR, record.as_bytes(), XattrFlags::empty());
            }
        }
        // Afterwards: a change of the owner takes set-user-ID bits away.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        self.part(&memory, NAME, attributes)
    }

    /// A mount of `path` in a mount that is attached nowhere.
    fn part(&self, whole: &OwnedFd, path: &str, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
        attach_at(whole, &self.staging)?;
        let part = open_in(whole, path)
            .map_err(io::Error::from)
            .and_then(|part| mounts::bind_at(part, "", attributes));
        unmount(&self.staging, UnmountFlags::DETACH)?;
        part
    }

    /// Hides, or makes read-only, what belongs to the whole machine.
    fn mask(&mut self) -> Result<(), InitFailure> {
        let paths = entries(MASKED_PATHS).flat_map(|path| self.each(path)).collect::<Vec<_>>();
        for path in &paths {
            let Some(target) = self.places.find(path).stage(Stage::Mask, path)? else { continue };
            let cover = match kind_of(&target).stage(Stage::Mask, path)? {
                Kind::Directory => self.empty_directory(),
                Kind::File => mounts::bind_at(&self.dev, "null", NOSUID | NOEXEC),
            };
            cover.and_then(|cover| attach(&cover, &target)).stage(Stage::Mask, path)?;
        }
        for path in entries(READONLY_PATHS) {
            let Some(target) = self.places.find(path).stage(Stage::Mask, path)? else { continue };
            let same = mounts::bind_at(&target, "", NOSUID | NODEV | NOEXEC | RDONLY);
            same.and_then(|same| attach(&same, &target)).stage(Stage::Mask, path)?;
        }
        Ok(())
    }

    /// The paths that a pattern with `*` for a number from 0 on stands for. Where there is none of number 0, as in most
    /// virtual machines, one look is enough.
    fn each(&self, pattern: &str) -> Vec<String> {
        let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.to_owned()] };
        let is_there = |path: &String| matches!(self.places.find(path), Ok(Some(_)));
        (0..).map(|number| format!("{before}{number}{after}")).take_while(is_there).collect()
    }

    /// Makes the new root the process's and drops the host's tree: pivot_root(2), "pivot_root(".", ".")".
    fn pivot(self, read_only: bool) -> Result<Stubs, InitFailure> {
        let change = || -> io::Result<()> {
            for (name, remove) in &self.temporaries {
                unlinkat(&self.dev, name, *remove)?;
            }
            if read_only {
                mounts::set(self.places.root(), false, RDONLY)?;
            }
            rustix::process::fchdir(self.places.root())?;
            match rustix::process::pivot_root(".", ".") {
                Ok(()) => unmount(".", UnmountFlags::DETACH)?,
                // docker's filter forbids it even to containers that may mount (`--cap-add SYS_ADMIN`). The root is
                // mounted over the host's already; from below a mount at `/` no path leads up.
                Err(Errno::PERM) => rustix::process::chroot(".")?,
                Err(error) => return Err(error.into()),
            }
            rustix::process::chdir("/")?;
            Ok(())
        };
        change().stage(Stage::PivotRoot, "/")?;
        Ok(self.places.stubs)
    }

    /// A read-only mount of a new file. Its name goes when all is in place: the mount keeps it.
    fn file(&mut self, content: &str, mode: u32) -> io::Result<OwnedFd> {
        let name = self.temporary(AtFlags::empty());
        self.dev_file(&name, mode)?.write_all(content.as_bytes())?;
        let mounted = mounts::bind_at(&self.dev, name, RDONLY)?;
        // It lies in /dev, where nothing may be executed; a heredoc with `#!` must be.
        mounts::clear(&mounted, NOEXEC)?;
        Ok(mounted)
    }

    /// A read-only mount of an empty directory that will have no name any more, so that nothing can be made in it.
    fn empty_directory(&mut self) -> io::Result<OwnedFd> {
        let name = self.temporary(AtFlags::REMOVEDIR);
        mkdirat(&self.dev, &name, Mode::from_raw_mode(0o555))?;
        mounts::bind_at(&self.dev, name, RDONLY)
    }

    fn temporary(&mut self, remove: AtFlags) -> String {
        let name = format!(".kiln-{}", self.temporaries.len());
        self.temporaries.push((name.clone(), remove));
        name
    }

    fn dev_file(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(openat(&self.dev, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    fn attach_in_dev(&self, mounted: io::Result<OwnedFd>, name: &str) -> Result<(), InitFailure> {
        let path = Path::new("/dev").join(name);
        let mounted = mounted.stage(Stage::MountSystem, &path)?;
        let place = || -> io::Result<()> {
            mkdirat(&self.dev, name, Mode::from_raw_mode(0o755))?;
            attach(&mounted, &openat(&self.dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
        };
        place().stage(Stage::MountSystem, &path)
    }

    fn attach_system(
        &mut self,
        mounted: io::Result<OwnedFd>,
        path: &str,
        kind: Kind,
    ) -> Result<(), InitFailure> {
        let mounted = mounted.stage(Stage::MountSystem, path)?;
        self.attach_as(&mounted, path, kind, Stage::MountSystem)
    }

    fn attach_as(
        &mut self,
        mounted: &OwnedFd,
        path: &str,
        kind: Kind,
        stage: Stage,
    ) -> Result<(), InitFailure> {
        let target = self.places.find_or_make(path, kind).stage(Stage::MountPoint, path)?;
        attach(mounted, &target).stage(stage, path)
    }
}

/// The merged root file system, with `lowest` below its layers; `own` are its upper and its work directory.
fn mount_root(layers: &[PathBuf], own: (&Path, &Path), lowest: &OwnedFd) -> io::Result<OwnedFd> {
    let mut lower = vec![PathBuf::from(format!("/proc/self/fd/{}", lowest.as_raw_fd()))];
    lower.extend_from_slice(layers);
    let merge = || mounts::overlay(&lower, Some(own), NODEV);
    if merges_detached() {
        return merge();
    }
    // Taken off again at once: what is left there would stay between the step and the host's root.
    attach_at(lowest, Path::new("/"))?;
    let merged = merge();
    rustix::process::fchdir(lowest)?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    merged
}

/// Whether overlay takes layers that are attached nowhere: Linux 6.15. It cannot be tried, as a mount that fails leaves
/// its mark in the work directory.
pub(crate) fn merges_detached() -> bool {
    kernel::version() >= (6, 15)
}

/// /sys, read-only for a sandboxed step: a new one where the network namespace is ours, else the machine's.
fn sysfs(own_network: bool, security: Security) -> io::Result<OwnedFd> {
    let attributes = match security {
        Security::Sandbox => NOSUID | NODEV | NOEXEC | RDONLY,
        Security::Insecure => NOSUID | NODEV | NOEXEC,
    };
    if own_network && let Ok(fresh) = mounts::fresh("sysfs", &[], attributes) {
        return Ok(fresh);
    }
    // Without the control groups below, if the kernel lets us: in a user namespace it does not.
    match mounts::bind_at(CWD, "/sys", attributes).or_else(|_| mounts::bind(Path::new("/sys"), attributes)) {
        // A sandbox without one, as bubblewrap makes them.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            mounts::tmpfs(&[("mode", "0555")], attributes | RDONLY)
        }
        bound => bound,
    }
}

pub(crate) fn hosts(hostname: &str, more: &[(String, String)]) -> String {
    let own = if hostname.is_empty() { String::new() } else { format!("127.0.0.1\t{hostname}\n") };
    let more: String = more.iter().map(|(address, name)| format!("{address}\t{name}\n")).collect();
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n{own}{more}"
    )
}

fn attach(mounted: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mounted, "", target, "", both)?)
}

fn attach_at(mounted: &OwnedFd, path: &Path) -> io::Result<()> {
    Ok(move_mount(mounted, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
