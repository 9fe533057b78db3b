//! /proc, /sys, /dev and the files of /etc that tell of the network, as directories and files of their own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use kiln_core::RunSpec;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{World, directory, file, hosts, world};
use crate::error::{InitFailure, Stage, StageExt as _};
use crate::network::names;
use crate::proc::fill;
use crate::streams::Streams;

impl World {
    pub(super) fn system(&mut self, spec: &RunSpec) -> Result<Streams, InitFailure> {
        let proc = self.fresh();
        directory(&proc, 0o555).and_then(|()| fill(File::open(&proc)?)).stage(Stage::MountSystem, "/proc")?;
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
    Streams::new(File::open(path)?)
}
