//! What a build says while it goes on. One enum; docs/events.md fixes its JSON form.

use serde::{Deserialize, Serialize};

use crate::{Digest, StepUsage, StepWhy};

/// Something happened. Steps are numbered by the build, from 1, in the order they are first mentioned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The step graph is known.
    PlanReady {
        /// Its steps, those that are no part of what is wanted left out.
        steps: usize,
    },
    /// A number stands for this step from now on. Internal work (resolving, exporting) is a step here too.
    StepDeclared {
        /// Its number.
        step: u32,
        /// `[build 2/4] RUN make`, or `[internal] load build context`.
        title: String,
        /// First and last line in the Dockerfile.
        lines: Option<(usize, usize)>,
    },
    /// It began.
    StepStarted {
        /// Which.
        step: u32,
    },
    /// Why it runs; only where this was asked for, or where kiln chose so. Comes after `StepStarted` and before its log.
    StepReason {
        /// Which.
        step: u32,
        /// The reason.
        why: Box<StepWhy>,
    },
    /// Its result was there already.
    StepCached {
        /// Which.
        step: u32,
    },
    /// Another process does the same, and it waits for that one; or it does not wait any more.
    StepWaiting {
        /// Which.
        step: u32,
        /// For whom, as a person would say it: `process 4711, kiln build /src/app, for 12 s`. None: it goes on.
        holder: Option<String>,
    },
    /// Its process wrote something.
    StepLog {
        /// Which.
        step: u32,
        /// On which stream.
        stream: LogStream,
        /// Whole lines where possible, with their line ends; invalid UTF-8 replaced.
        text: String,
    },
    /// Part of it is done.
    StepProgress {
        /// Which.
        step: u32,
        /// Of what, such as a layer's short digest; a step may have several at once.
        item: String,
        /// Done so far, bytes.
        current: u64,
        /// In all, bytes, if known.
        total: Option<u64>,
    },
    /// It ended.
    StepFinished {
        /// Which.
        step: u32,
        /// How.
        outcome: StepOutcome,
        /// How long, microseconds of wall time.
        duration_us: u64,
        /// What its process used, if it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<StepUsage>,
    },
    /// A step's cache mount changed state.
    CacheMount {
        /// Which step.
        step: u32,
        /// The cache's id.
        id: String,
        /// Where the step sees it.
        target: String,
        /// What happened.
        state: CacheMountState,
    },
    /// Something to know that is no failure.
    Warning {
        /// One sentence, lower case.
        message: String,
        /// First and last line in the Dockerfile it concerns.
        lines: Option<(usize, usize)>,
    },
    /// An output is finished.
    Exported {
        /// `type=oci,dest=out.tar`, as a person would write it.
        output: String,
        /// Digest of the image manifest or index, if the output has one.
        digest: Option<Digest>,
        /// Names it was given.
        names: Vec<String>,
    },
}

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum StepOutcome {
    /// Well.
    Done,
    /// Not; the build's error says more.
    Failed {
        /// One line.
        message: String,
    },
    /// Something else failed first, or the build was interrupted.
    Cancelled,
}

/// What happened to a cache mount of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CacheMountState {
    /// It is held in a way that this step must wait for.
    Waiting {
        /// By whom, as a person would say it: `process 4711, step "[2/4] RUN apt-get install"`.
        holder: String,
    },
    /// The step has it.
    Acquired {
        /// Whether it was made just now.
        new: bool,
        /// How long the step waited, microseconds.
        waited_us: u64,
    },
}

/// Is told what happens, from any thread.
pub trait EventSink: Sync {
    /// Takes one event. Must not block for long: steps wait for it.
    fn emit(&self, event: Event);
}

impl<F: Fn(Event) + Sync> EventSink for F {
    fn emit(&self, event: Event) {
        self(event);
    }
}
