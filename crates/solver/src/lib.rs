//! Keys, scheduling and cache look-up over a step graph.
//!
//! [`solve`] makes the wanted steps' snapshots, running as little as it can: it finds out each step's key from the
//! bottom up, looks the key up, and runs only what is missing below what is wanted. It does no I/O of its own: a
//! [`Worker`] hashes files and executes steps, a [`CacheIndex`] keeps [`StepRecord`]s, a [`Progress`] is told.
//! docs/cache-keys.md says what is in a key and when a record counts.

mod crew;
mod error;
mod foresight;
mod index;
mod key;
mod node;
mod parts;
mod place;
mod progress;
mod schedule;
mod solve;
mod task;
mod worker;

pub use error::SolveError;
pub use index::{CacheIndex, Elsewhere, Sought, StepRecord};
pub use key::{KeyInputs, Snapshots, SourceInput, content_key, definition_key};
pub use parts::{KeyPart, KeyParts};
pub use place::Place;
pub use progress::Progress;
pub use solve::{Finished, Solved, Verdict, solve};
pub use worker::{Claim, Inputs, SourceUse, Worker};
