//! Who does which jobs. Each thread has a share of its own that it does in order, and then helps with the largest that
//! is left, from its end: so that two threads seldom make files in one directory, where the kernel lets in one at a time.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Numbers of jobs that are left, by thread.
#[derive(Debug)]
pub(super) struct Shares(Mutex<Vec<Range<usize>>>);

impl Shares {
    /// Divides so many jobs among so many threads.
    pub(super) fn new(jobs: usize, threads: usize) -> Self {
        let at = |thread: usize| jobs * thread / threads.max(1);
        Self(Mutex::new((0..threads).map(|thread| at(thread)..at(thread + 1)).collect()))
    }

    /// Returns what a thread does next; none if all is done or being done.
    pub(super) fn next(&self, thread: usize) -> Option<usize> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = shares.get_mut(thread)?.next() {
            return Some(job);
        }
        shares.iter_mut().max_by_key(|share| share.len())?.next_back()
    }

    /// Leaves what was not begun undone.
    pub(super) fn stop(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(0..0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_whoever_is_faster() {
        for (jobs, threads) in [(0, 1), (1, 4), (7, 2), (100, 3), (5, 5)] {
            for fast in 0..threads {
                let shares = Shares::new(jobs, threads);
                let mut done: Vec<usize> = Vec::new();
                while let Some(job) = shares.next(fast) {
                    done.push(job);
                    // The others do one now and then.
                    let turn = done.len() % 2;
                    done.extend(
                        (0..threads).filter(|slow| slow % 2 == turn).filter_map(|slow| shares.next(slow)),
                    );
                }
                done.sort_unstable();
                assert_eq!(
                    done,
                    (0..jobs).collect::<Vec<_>>(),
                    "{jobs} jobs, {threads} threads, {fast} is fast"
                );
            }
        }
        let shares = Shares::new(10, 2);
        assert_eq!((shares.next(0), shares.next(1), shares.next(1)), (Some(0), Some(5), Some(6)));
        shares.stop();
        assert_eq!((shares.next(0), shares.next(1)), (None, None));
    }
}
