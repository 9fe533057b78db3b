//! What stat(2) writes into its caller's memory, made from what statx(2) says.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;

use super::place::errno;
use crate::sys::notify as sys;

/// A `struct stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Amd64,
    Arm64,
    /// The first one of 32-bit machines.
    Old,
    I386,
    Arm,
}

/// `struct statx`, in which an answer is made.
pub(crate) struct Status(pub(crate) [u8; 256]);

const AMD64: u32 = 0xc000_003e;
const ARM64: u32 = 0xc000_00b7;
const I386: u32 = 0x4000_0003;

impl Layout {
    /// Returns that of a machine's (`AUDIT_ARCH_*`) ordinary calls, or of those for large files.
    pub(crate) fn of(audit: u32, large: bool) -> Self {
        match audit {
            AMD64 => Self::Amd64,
            ARM64 => Self::Arm64,
            _ if !large => Self::Old,
            I386 => Self::I386,
            _ => Self::Arm,
        }
    }
}

/// STATX_BASIC_STATS and STATX_MNT_ID: all that a `struct stat` has, and what tells a file from others.
const NEEDED: u32 = 0x17ff;

impl Status {
    pub(crate) fn of(file: &OwnedFd) -> Result<Self, Errno> {
        Self::read(file, 0, 0)
    }

    /// Reads it with statx's own flags, and more if `mask` says so.
    pub(crate) fn read(file: &OwnedFd, flags: u32, mask: u32) -> Result<Self, Errno> {
        sys::statx_bytes(file.as_fd(), flags, mask | NEEDED).map(Self).map_err(errno)
    }

    pub(crate) fn mode(&self) -> u32 {
        u32::from(u16::from_ne_bytes([self.0[28], self.0[29]]))
    }

    pub(crate) fn links(&self) -> u32 {
        self.word(16)
    }

    pub(crate) fn owner(&self) -> (u32, u32) {
        (self.word(20), self.word(24))
    }

    /// What tells a file from all others.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (u64::from(self.word(136)) << 32 | u64::from(self.word(140)), self.long(32))
    }

    pub(crate) fn mount(&self) -> u64 {
        self.long(144)
    }

    /// Writes over it what the file is to be.
    pub(crate) fn set(&mut self, (uid, gid): (u32, u32), mode: u32, device: (u32, u32)) {
        for (at, value) in [(20, uid), (24, gid), (128, device.0), (132, device.1)] {
            self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        self.0[28..30].copy_from_slice(&(mode & 0xffff).to_ne_bytes()[..2]);
    }

    /// Returns it in another layout; none where a number does not fit: the kernel has an error for that.
    pub(crate) fn laid_out(&self, layout: Layout) -> Option<Laid> {
        let mut to = Laid { bytes: [0; 144], length: 0 };
        let times = [64, 112, 96];
        match layout {
            Layout::Amd64 => {
                to.longs(0, [self.device(136), self.long(32), self.links().into()]);
                to.words(24, [self.mode(), self.word(20), self.word(24)]);
                to.longs(40, [self.device(128), self.long(40), self.word(4).into(), self.long(48)]);
                for (number, time) in times.into_iter().enumerate() {
                    to.longs(72 + 16 * number, [self.long(time), self.word(time + 8).into()]);
                }
                to.length = 144;
            }
            Layout::Arm64 => {
                to.longs(0, [self.device(136), self.long(32)]);
                to.words(16, [self.mode(), self.links(), self.word(20), self.word(24)]);
                to.longs(32, [self.device(128), 0, self.long(40), self.word(4).into(), self.long(48)]);
                for (number, time) in times.into_iter().enumerate() {
                    to.longs(72 + 16 * number, [self.long(time), self.word(time + 8).into()]);
                }
                to.length = 128;
            }
            Layout::Old => {
                to.words(0, [low(self.device(136))?, low(self.long(32))?]);
                let ids = [self.mode(), self.links(), narrow(self.word(20)), narrow(self.word(24))];
                for (number, value) in ids.into_iter().enumerate() {
                    to.put(8 + 2 * number, &u16::try_from(value).ok()?.to_ne_bytes());
                }
                let size = u32::try_from(i32::try_from(self.long(40)).ok()?).ok()?;
                to.words(16, [low(self.device(128))?, size, self.word(4), low(self.long(48))?]);
                self.old_times(&mut to, 32)?;
                to.length = 64;
            }
            Layout::I386 | Layout::Arm => {
                // ARM aligns what has 64 bits.
                let aligned = layout == Layout::Arm;
                let (size, block_size, blocks, first_time, number) =
                    if aligned { (48, 56, 64, 72, 96) } else { (44, 52, 56, 64, 88) };
                to.longs(0, [self.device(136)]);
                // The old place of the number.
                to.words(12, [self.long(32) as u32, self.mode(), self.links(), self.word(20), self.word(24)]);
                to.longs(32, [self.device(128)]);
                to.longs(size, [self.long(40)]);
                to.words(block_size, [self.word(4)]);
                to.longs(blocks, [self.long(48)]);
                self.old_times(&mut to, first_time)?;
                to.longs(number, [self.long(32)]);
                to.length = number + 8;
            }
        }
        Some(to)
    }

    fn old_times(&self, to: &mut Laid, at: usize) -> Option<()> {
        for (number, time) in [64, 112, 96].into_iter().enumerate() {
            to.words(at + 8 * number, [low(self.long(time))?, self.word(time + 8)]);
        }
        Some(())
    }

    /// A device's number as stat(2) has it, from major and minor.
    fn device(&self, at: usize) -> u64 {
        let (major, minor) = (u64::from(self.word(at)), u64::from(self.word(at + 4)));
        minor & 0xff | major << 8 | (minor & !0xff) << 12
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn long(&self, at: usize) -> u64 {
        let (low, high) = (u64::from(self.word(at)), u64::from(self.word(at + 4)));
        low | high << 32
    }
}

/// A `struct stat` in one of the layouts.
pub(crate) struct Laid {
    bytes: [u8; 144],
    length: usize,
}

impl Laid {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn words<const COUNT: usize>(&mut self, at: usize, values: [u32; COUNT]) {
        for (number, value) in values.into_iter().enumerate() {
            self.put(at + 4 * number, &value.to_ne_bytes());
        }
    }

    fn longs<const COUNT: usize>(&mut self, at: usize, values: [u64; COUNT]) {
        for (number, value) in values.into_iter().enumerate() {
            self.put(at + 8 * number, &value.to_ne_bytes());
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn low(value: u64) -> Option<u32> {
    u32::try_from(value).ok()
}

/// An id in 16 bits; what has none there is nobody's.
pub(crate) fn narrow(id: u32) -> u32 {
    if id > 0xffff { 65_534 } else { id }
}
