//! The compressor without all that is around it, for measurements.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use flate2::FlushCompress;

use super::{Compression, WINDOW, deflate};

/// Deflates bytes as a gzip layer of one large file is, in the same blocks, and drops the result: what packing is measured against
/// (docs/decisions/0029). Returns the bytes of the result, without gzip's header and trailer.
pub fn deflate_alone(bytes: &[u8], level: u32, threads: usize) -> u64 {
    let block = Compression::Gzip { level }.block();
    let (next, total) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || {
        let mut packed = Vec::new();
        loop {
            let begin = next.fetch_add(1, Ordering::Relaxed) * block;
            let Some(rest) = bytes.get(begin..).filter(|rest| !rest.is_empty()) else { return };
            let raw = &rest[..block.min(rest.len())];
            let flush = if raw.len() == rest.len() { FlushCompress::Finish } else { FlushCompress::Sync };
            packed.clear();
            deflate(raw, &bytes[begin.saturating_sub(WINDOW)..begin], level.min(9), flush, &mut packed);
            total.fetch_add(packed.len() as u64, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    total.into_inner()
}
