//! A second place for a blob's bytes: they are written there as they are made, so that nobody reads and writes them once more later.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::early::Early;

/// A part of a file of the caller's, from some place on. The blob does not depend on it: where it cannot be written it stays as it is.
#[derive(Debug, Clone)]
pub struct Twin {
    file: Arc<File>,
    at: u64,
    written: Arc<AtomicU64>,
}

impl Twin {
    /// The part of a file from a byte on. What is behind it is written over.
    pub fn new(file: Arc<File>, at: u64) -> Self {
        Self { file, at, written: Arc::default() }
    }

    /// Returns where it begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Returns how many of the blob's bytes it has. All of them if that is the blob's size, which is never zero; none if the blob
    /// was there before.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

/// What writes one.
#[derive(Debug)]
pub(crate) struct TwinWriter {
    twin: Twin,
    length: u64,
    early: Early,
}

impl TwinWriter {
    pub(crate) fn new(twin: Twin) -> Self {
        let early = Early::behind(twin.at);
        Self { twin, length: 0, early }
    }

    /// Adds bytes. Returns whether more can follow.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let Twin { file, at, written } = &self.twin;
        if file.write_all_at(bytes, at + self.length).is_err() {
            written.store(0, Ordering::Release);
            // On a full disk it would only be in the way of the blob.
            let _ = file.set_len(*at);
            return false;
        }
        self.length += bytes.len() as u64;
        self.early.written(file, self.length);
        written.store(self.length, Ordering::Release);
        true
    }
}
