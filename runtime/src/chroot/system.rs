//! /proc, /sys, /dev and the files of /etc that tell of the network, as directories and files of their own.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use kiln_core::RunSpec;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::{World, directory, file, hosts, world};
use crate::error::{InitFailure, Stage, StageExt as _};
use crate::network::names;

const PROC_FILES: &str = include_str!("../../data/proc_files");

/// As much of a file in /proc as is copied: more than any of those has.
const MAX_PROC_FILE: u64 = 1 << 20;

impl World {
    pub(super) fn system(&mut self, spec: &RunSpec) -> Result<Streams, InitFailure> {
        let proc = self.fresh();
        minimal_proc(&proc).stage(Stage::MountSystem, "/proc")?;
        self.put(&proc, "/proc", Stage::MountSystem)?;
        let sys = self.fresh();
        directory(&sys, 0o555).stage(Stage::MountSystem, "/sys")?;
        self.put(&sys, "/sys", Stage::MountSystem)?;
        let dev = self.fresh();
        let streams = devices(&dev).stage(Stage::MountSystem, "/dev")?;
        self.put(&dev, "/dev", Stage::MountSystem)?;
        // A machine without one has nothing to tell.
        let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resolv = names::resolv_conf(&resolv, spec.network, None, &spec.resolver);
        // The name of the machine stays what it is; the step's is known beside it.
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hosts = format!(
            "{}127.0.0.1\t{}\n",
            hosts(&spec.hostname, &names::hosts(&spec.machine.hosts, spec.network, None)),
            name.trim()
        );
        for (path, content) in [("/etc/hosts", hosts), ("/etc/resolv.conf", resolv)] {
            let made = self.fresh();
            file(&made, content.as_bytes(), 0o644).stage(Stage::MountSystem, path)?;
            self.put(&made, path, Stage::MountSystem)?;
        }
        Ok(streams)
    }
}

/// What tells of the machine, as it is now; nothing that tells of a process but an empty list of mounts.
fn minimal_proc(path: &Path) -> io::Result<()> {
    directory(path, 0o555)?;
    for name in world::entries(PROC_FILES) {
        let mut content = Vec::new();
        // A kernel without it has nothing to tell.
        let Ok(known) = File::open(Path::new("/proc").join(name)) else { continue };
        if known.take(MAX_PROC_FILE).read_to_end(&mut content).is_err() {
            continue;
        }
        let copy = path.join(name);
        fs::create_dir_all(copy.parent().unwrap_or(path))?;
        file(&copy, &content, 0o444)?;
    }
    directory(&path.join("self"), 0o555)?;
    let mounts = b"rootfs / rootfs rw 0 0\n";
    file(&path.join("self/mounts"), mounts, 0o444)?;
    symlink("self/mounts", path.join("mounts"))
}

fn devices(path: &Path) -> io::Result<Streams> {
    directory(path, 0o755)?;
    for name in world::entries(world::DEVICES) {
        let device = fs::metadata(Path::new("/dev").join(name))?.rdev();
        let node = path.join(name);
        mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)?;
    }
    // EACCES: the store is on a file system that is mounted `nodev`.
    File::options().write(true).open(path.join("null"))?;
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)] {
        directory(&path.join(name), mode)?;
    }
    Streams::new(path)
}

/// /dev/stdout and /dev/stderr. With a real /proc they lead to the process's own streams; here they are pipes, and what
/// comes through them is passed on to the step's.
pub(crate) struct Streams([File; 2]);

impl Streams {
    fn new(dev: &Path) -> io::Result<Self> {
        let pipe = |name: &str| -> io::Result<File> {
            let path = dev.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
            // Open on both sides, so that it never comes to an end: fifo(7).
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            Ok(rustix::fs::open(&path, flags, Mode::empty())?.into())
        };
        Ok(Self([pipe("stdout")?, pipe("stderr")?]))
    }

    /// Readable when there is something to pass on.
    pub(crate) fn wanted(&self) -> [BorrowedFd<'_>; 2] {
        [self.0[0].as_fd(), self.0[1].as_fd()]
    }

    /// Passes on what there is. Who reads the step's output being gone is no error of the step's.
    pub(crate) fn pump(&mut self) {
        let mut buffer = [0; 4096];
        for (number, pipe) in self.0.iter_mut().enumerate() {
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let mut rest = &buffer[..length];
                let stream = if number == 0 { rustix::stdio::stdout() } else { rustix::stdio::stderr() };
                while let Ok(written @ 1..) = rustix::io::write(stream, rest) {
                    rest = &rest[written..];
                }
            }
        }
    }
}
