//! What is different in a second build.

use kiln_core::{DirectoryOrder, Variation};
use rustix::fs::Mode;
use rustix::process::umask;
use serde::{Deserialize, Serialize};

use crate::Engine;

/// What may differ from one build to the next, though nobody wants it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Circumstance {
    /// The time of day: a later one.
    Time,
    /// kiln's own clock, by which it dates what steps leave: more than a year ahead.
    Clock,
    /// The host name that steps see.
    HostName,
    /// kiln's umask.
    Umask,
    /// How many steps run at a time: one.
    Jobs,
    /// The order in which steps see the entries of a directory: from the last to the first in the second build, any in the others.
    DirectoryOrder,
}

impl Circumstance {
    /// Returns it in a person's words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Time => "a later time",
            Self::Clock => "kiln's clock",
            Self::HostName => "host name",
            Self::Umask => "umask",
            Self::Jobs => "one step at a time",
            Self::DirectoryOrder => "order of directories",
        }
    }
}

/// What was the same in all builds, as it could not be changed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unvaried {
    /// What.
    pub circumstance: Circumstance,
    /// Why, in a person's words.
    pub reason: String,
}

/// Another year, month, day of the week and hour: seconds.
const AHEAD: u64 = (398 * 24 + 7) * 3600;

/// Another umask of this process, until it is dropped: what a group may write, it may not, or the other way. Not a narrower one:
/// what the store keeps of such a build would stay closed to others.
pub(super) struct Umask(Mode);

impl Umask {
    pub(super) fn other() -> Self {
        // It can only be read by setting it.
        let before = umask(Mode::from_raw_mode(0o022));
        umask(before ^ Mode::WGRP);
        Self(before)
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// What steps of a build see, and what kiln does with them, so that it differs from the first.
pub(super) fn variation(run: u32, varied: &[Circumstance]) -> Variation {
    let order = match run {
        // Each pair of names is the other way round: no other order shows as much.
        ..=2 => DirectoryOrder::Reversed,
        run => DirectoryOrder::Shuffled { key: run.into() },
    };
    Variation {
        hostname: format!("verify-{run}"),
        ahead: AHEAD * u64::from(run - 1),
        directory_order: varied.contains(&Circumstance::DirectoryOrder).then_some(order),
    }
}

impl Engine {
    /// Finds what can be different here, and what cannot.
    pub(super) fn circumstances(&self) -> (Vec<Circumstance>, Vec<Unvaried>) {
        use Circumstance::{Clock, DirectoryOrder, HostName, Jobs, Time, Umask};
        let (mut varied, mut same) = (vec![Time, Clock, Umask, Jobs], Vec::new());
        let steps = [(HostName, self.entered.can_name_hosts()), (DirectoryOrder, self.entered.can_reorder())];
        for (circumstance, can) in steps {
            match can {
                Ok(()) => varied.push(circumstance),
                Err(reason) => same.push(Unvaried { circumstance, reason }),
            }
        }
        (varied, same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_build_has_its_own_order() {
        let order = |run| variation(run, &[Circumstance::DirectoryOrder]).directory_order;
        assert_eq!(order(2), Some(DirectoryOrder::Reversed));
        assert_ne!(order(3), order(4));
        assert_eq!(variation(2, &[Circumstance::Clock]).directory_order, None);
    }
}
