//! A step's world without namespaces: a chroot into a tree, in which everything is put by renaming.
//!
//! Where nothing can be mounted, what would be mounted is moved to its place: a cache mount is that cache's directory
//! itself. Everything else is made in a directory beside the tree first. A journal says beforehand what is moved, so that
//! the store can move all back when the step is over, or after a crash: kiln_core::Moved. Nothing here keeps a
//! step from anything: docs/rootless.md.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kiln_core::{MOVED_ASIDE, MOVED_JOURNAL, MountSpec, MountSpecKind, Moved, Rootfs, RunSpec, Secret};
use rustix::fs::{
    CWD, FlockOperation, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, fstat, futimens,
    openat2, renameat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::error::{InitFailure, Stage, StageExt};
use crate::streams::Streams;
use crate::world::place::{Kind, Places};
use crate::world::{self, hosts};

mod descendants;
mod system;

pub(crate) use descendants::Descendants;

/// Puts the world of `spec` together and moves the process into it.
pub(crate) fn enter(spec: &RunSpec) -> Result<Streams, InitFailure> {
    let mut world = World::new(&spec.rootfs)?;
    let streams = world.system(spec)?;
    for mount in &spec.mounts {
        world.mount(mount)?;
    }
    world.enter()?;
    Ok(streams)
}

struct World {
    places: Places,
    /// As the kernel names it.
    tree: PathBuf,
    journal: File,
    /// Takes what is made, and what was in the way.
    aside: PathBuf,
    count: usize,
    /// What was put, and where.
    put: BTreeMap<PathBuf, PathBuf>,
}

impl World {
    fn new(rootfs: &Rootfs) -> Result<Self, InitFailure> {
        let Rootfs::Tree { path } = rootfs else {
            return Err(InitFailure::new(Stage::MountRoot, rootfs.changes(), &Errno::NOSYS.into()));
        };
        let beside = path.parent().unwrap_or(path);
        let open = || -> io::Result<Self> {
            let root =
                rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let tree = real_path(&root)?;
            let aside = beside.join(MOVED_ASIDE);
            fs::create_dir(&aside)?;
            let journal = File::create_new(beside.join(MOVED_JOURNAL))?;
            // Held until this process ends: nobody moves anything back before.
            rustix::fs::flock(&journal, FlockOperation::LockExclusive)?;
            let places = Places::new(root)?;
            let mut world = Self { places, tree, journal, aside, count: 0, put: BTreeMap::new() };
            world.note(&Moved::Root { path: world.tree.clone() })?;
            Ok(world)
        };
        open().stage(Stage::MountRoot, path)
    }

    /// One of the step's own mounts.
    fn mount(&mut self, mount: &MountSpec) -> Result<(), InitFailure> {
        let made = self.fresh();
        let source = match &mount.kind {
            // A file that is only read may be anybody's, such as kiln's own program. Everything else is moved, so whoever
            // runs steps here makes a copy of what is not kiln's.
            MountSpecKind::Bind { source, read_only: true } if source.is_file() => {
                fs::copy(source, &made).map(|_| made)
            }
            MountSpecKind::Bind { source, .. } => Ok(source.clone()),
            MountSpecKind::Tmpfs { .. } => directory(&made, 0o1777).map(|()| made),
            MountSpecKind::File { content, mode } => file(&made, content.as_bytes(), *mode).map(|()| made),
            MountSpecKind::Secret { content, mode, uid, gid } => {
                secret(&made, content, *mode, (*uid, *gid)).map(|()| made)
            }
            // Whoever asks for these here has not asked where steps run.
            MountSpecKind::Layers { .. } | MountSpecKind::Scratch { .. } => Err(Errno::NOSYS.into()),
        };
        let source = source.stage(Stage::Mount, &mount.target)?;
        self.put(&source, &mount.target, Stage::Mount)
    }

    /// Moves `source` to `target`. Wanted in two places, it is a link in the second.
    fn put(&mut self, source: &Path, target: &str, stage: Stage) -> Result<(), InitFailure> {
        if let Some(first) = self.put.get(source).cloned() {
            let link = self.fresh();
            symlink(Path::new("/").join(first), &link).stage(stage, target)?;
            return self.put(&link, target, stage);
        }
        let metadata = fs::symlink_metadata(source).stage(stage, source)?;
        let kind = if metadata.is_dir() { Kind::Directory } else { Kind::File };
        let place = self.places.find_or_make(target, kind).stage(Stage::MountPoint, target)?;
        let identity = (metadata.dev(), metadata.ino());
        let moved = self.exchange(source, identity, &place).stage(stage, target)?;
        self.put.insert(source.to_owned(), moved);
        Ok(())
    }

    /// Returns where in the tree it is now.
    fn exchange(&mut self, source: &Path, identity: (u64, u64), place: &OwnedFd) -> io::Result<PathBuf> {
        let real = real_path(place)?;
        let target = real.strip_prefix(&self.tree).map_err(io::Error::other)?.to_owned();
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            // The root itself.
            return Err(Errno::BUSY.into());
        };
        let (parent, aside) = (self.directory(parent)?, self.fresh());
        let time = modified(&parent)?;
        let line =
            Moved::Put { source: source.to_owned(), target: target.clone(), aside: aside.clone(), identity };
        self.note(&line)?;
        if !source.starts_with(&self.aside) {
            // Somebody else's: it must be known where it is even if the power fails.
            self.journal.sync_data()?;
        }
        renameat(&parent, name, CWD, &aside)?;
        renameat(CWD, source, &parent, name)?;
        futimens(&parent, &time)?;
        Ok(target)
    }

    fn note(&mut self, line: &Moved) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.journal.write_all(&bytes)
    }

    /// Opens a directory of the tree by its own name, links not followed.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(self.places.root(), path, flags, Mode::empty(), resolve)?)
    }

    fn fresh(&mut self) -> PathBuf {
        self.count += 1;
        self.aside.join(self.count.to_string())
    }

    fn enter(mut self) -> Result<(), InitFailure> {
        let change = |this: &mut Self| -> io::Result<()> {
            for path in this.places.stubs.paths() {
                this.note(&Moved::Place { path })?;
            }
            this.places.restore_times()?;
            rustix::process::fchdir(this.places.root())?;
            rustix::process::chroot(".")?;
            rustix::process::chdir("/")?;
            Ok(())
        };
        change(&mut self).stage(Stage::PivotRoot, "/")?;
        // With it goes nothing: the step has no descriptor of it, and init none to lose.
        std::mem::forget(self.journal);
        Ok(())
    }
}

/// The absolute path of what is open.
fn real_path(fd: &OwnedFd) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd as _;
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn modified(directory: &OwnedFd) -> io::Result<Timestamps> {
    let stat = fstat(directory)?;
    Ok(Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    })
}

fn directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)
}

/// Nobody but its owner can read it, from its first byte on.
fn secret(path: &Path, content: &Secret, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o0).open(path)?;
    file.write_all(content.bytes())?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
}
