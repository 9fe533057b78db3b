//! /dev/stdout and /dev/stderr where there is no real /proc. With one they lead to the process's own streams; here they are
//! pipes, and what comes through them is passed on to the step's.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, mknodat, openat};

/// Both, open.
pub(crate) struct Streams([File; 2]);

impl Streams {
    /// Makes them in a /dev.
    pub(crate) fn new(dev: impl AsFd) -> io::Result<Self> {
        let pipe = |name: &str| -> io::Result<File> {
            mknodat(&dev, name, FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
            // Open on both sides, so that it never comes to an end: fifo(7).
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            Ok(openat(&dev, name, flags, Mode::empty())?.into())
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
