//! What a step used: measured by its init, which is the parent of all its processes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use kiln_core::StepUsage;

use crate::sys;

/// Lines of /proc/PID/io: proc_pid_io(5).
const FIELDS: [&str; 4] = ["rchar: ", "wchar: ", "read_bytes: ", "write_bytes: "];

/// Runs from the step's start.
pub(crate) struct Meter {
    began: Instant,
    /// Counts this process and all that it has waited for. Not there on a kernel without task I/O accounting.
    io: Option<File>,
    before: [u64; FIELDS.len()],
}

impl Meter {
    /// Makes one, where there is a /proc.
    pub(crate) fn open() -> Self {
        Self { began: Instant::now(), io: File::open("/proc/self/io").ok(), before: [0; FIELDS.len()] }
    }

    /// Starts it.
    pub(crate) fn start(&mut self) {
        self.before = self.io.as_ref().and_then(|io| read(io).ok()).unwrap_or_default();
        self.began = Instant::now();
    }

    /// Reads it.
    pub(crate) fn usage(&self) -> StepUsage {
        let now = self.io.as_ref().and_then(|io| read(io).ok()).unwrap_or_default();
        let [read_bytes, written_bytes, disk_read_bytes, disk_written_bytes] =
            std::array::from_fn(|index| now[index].saturating_sub(self.before[index]));
        StepUsage {
            wall_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            read_bytes,
            written_bytes,
            disk_read_bytes,
            disk_written_bytes,
            ..sys::usage_of_children()
        }
    }
}

fn read(io: &File) -> io::Result<[u64; FIELDS.len()]> {
    let mut buffer = [0; 512];
    let count = io.read_at(&mut buffer, 0)?;
    let text = String::from_utf8_lossy(&buffer[..count]);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
    Ok(FIELDS.map(|name| field(name).unwrap_or(0)))
}
