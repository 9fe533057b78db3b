//! Strict fakes, fixtures as text and conformance suites; for tests only.

pub mod certificates;
pub mod debian_registry;
pub mod git;
pub mod image;
pub mod layers;
pub mod random;
pub mod registry;
pub mod tools;

mod cache_index;
mod graph;
mod memory_index;
mod progress;
mod worker;

pub use cache_index::{SnapshotMaker, cache_index_conformance};
pub use graph::{TestGraph, graph};
pub use memory_index::{IndexCall, MemoryIndex};
pub use progress::ProgressLog;
pub use worker::{FakeError, FakeWorker, Gate, WorkerCall};
