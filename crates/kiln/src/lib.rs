//! Build container images from Dockerfiles, without a daemon, root or host packages.
//!
//! Call [`init`] first thing in `main`, then [`Builder::build`]. docs/embedding.md is the guide.

mod error;
mod outcome;
mod request;

pub use error::Error;
pub use kiln_core::{
    CacheMountState, Cancel, Digest, Event, EventSink, ImageRef, LogStream, Platform, StepOutcome, StepUsage,
};
pub use outcome::{BuildOutcome, BuiltImage, CacheVerdict, StepReport};
pub use request::{BuildRequest, ContextSource, DockerfileSource, Output, RegistryOptions};
