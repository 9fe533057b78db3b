//! `kiln verify`: builds twice under other circumstances, and says what came out differently.
//!
//! <https://reproducible-builds.org/docs/definition/>. What a second build has different is [`vary`]'s to say, and that
//! it is a later time. Nothing is taken from the first but what kiln fetched: bases, sources, cache mounts.

mod advice;
mod compare;
mod json;
mod vary;

use std::io::Read;
use std::time::{Duration, Instant};

use kiln_core::{Cancel, Digest, EventSink, Layer, Platform};
use kiln_oci::LoadedImage;
use kiln_store::StoreError;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::manage::stored::Stored;
use crate::{BuildOutcome, BuildRequest, BuiltImage, ContextSource, Error, Output, SourceDate};
use vary::Umask;

pub use compare::PathDifference;
pub use vary::{Circumstance, Unvaried};

/// What to build, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// What to build. Its outputs and tags are not looked at. Without a source date it gets that of the context's commit, or
    /// where there is none the year 1970: files that are made at different times would differ by those alone.
    pub build: BuildRequest,
    /// How many builds, 2 or more.
    pub runs: u32,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The first build's digest.
    pub digest: Option<Digest>,
    /// The time that clamps all others, seconds since 1970; none if it is the context's commit's.
    pub source_date_epoch: Option<u64>,
    /// Builds that were made.
    pub runs: u32,
    /// What was different in the builds after the first.
    pub varied: Vec<Circumstance>,
    /// What would have been, and could not be.
    pub same: Vec<Unvaried>,
    /// The first difference; none if all builds gave the same.
    pub difference: Option<ImageDifference>,
}

/// Where two builds differ first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDifference {
    /// Which build differs from the first, from 2.
    pub run: u32,
    /// Its digest.
    pub digest: Option<Digest>,
    /// In which platform's image.
    pub platform: Platform,
    /// What differs there.
    pub part: PartDifference,
}

/// What differs in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartDifference {
    /// A layer.
    Layer {
        /// Its number, from 1.
        number: usize,
        /// How many layers the image has.
        of: usize,
        /// Its line of the image's history: the instruction that made it.
        created_by: String,
        /// Paths in it that differ, in order; at most [`PathDifference::MOST`].
        paths: Vec<PathDifference>,
        /// How many differ in all.
        count: usize,
    },
    /// One build has more layers.
    Layers {
        /// How many the first has.
        first: usize,
        /// How many the other.
        other: usize,
    },
    /// The configuration, where all layers are the same.
    Config {
        /// Which member: `config.Env[2]`.
        field: String,
        /// In the first build.
        first: String,
        /// In the other.
        other: String,
    },
}

/// So long after a step, which may have run just before if it was cached, the time is another one by any clock that people
/// print.
const LATER: Duration = Duration::from_millis(1100);

impl Engine {
    /// Builds several times, and compares.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn verify(
        &self,
        request: &VerifyRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<VerifyReport, Error> {
        let _pin = self.store.pin()?;
        let mut build = request.build.clone();
        build.outputs = vec![Output::image()];
        build.tags = Vec::new();
        let date = *build.source_date_epoch.get_or_insert_with(|| assumed_date(&request.build.context));
        let first = self.build(&build, events, cancel)?;
        let ended = Instant::now();
        build.no_cache = true;
        build.jobs = Some(1);
        let (varied, same) = self.circumstances();
        let mut report = VerifyReport {
            digest: first.digest,
            source_date_epoch: match date {
                SourceDate::Seconds(seconds) => Some(seconds),
                SourceDate::Commit => None,
            },
            runs: 1,
            varied,
            same,
            difference: None,
        };
        for run in 2..=request.runs.max(2) {
            // Not for anybody to be ready: it is the time itself that shall be another.
            std::thread::sleep(LATER.saturating_sub(ended.elapsed()));
            build.sandbox.variation = Some(vary::variation(run, &report.varied));
            let umask = Umask::other();
            let other = self.build(&build, events, cancel)?;
            drop(umask);
            report.runs = run;
            if other.digest != first.digest {
                report.difference = self.difference(run, &first, &other)?;
                // Nobody's image.
                self.forget(&other.digest.into_iter().collect())?;
                break;
            }
        }
        Ok(report)
    }

    fn difference(
        &self,
        run: u32,
        first: &BuildOutcome,
        other: &BuildOutcome,
    ) -> Result<Option<ImageDifference>, Error> {
        for (ours, theirs) in first.images.iter().zip(&other.images) {
            if ours.manifest != theirs.manifest {
                let part = self.part(&self.loaded(ours)?, &self.loaded(theirs)?)?;
                let platform = ours.platform.clone();
                return Ok(Some(ImageDifference { run, digest: other.digest, platform, part }));
            }
        }
        Ok(None)
    }

    fn part(&self, first: &LoadedImage, other: &LoadedImage) -> Result<PartDifference, Error> {
        let of = first.layers.len();
        for (at, (ours, theirs)) in first.layers.iter().zip(&other.layers).enumerate() {
            if ours.diff_id != theirs.diff_id {
                let found = compare::differences(&|| self.tar(ours), &|| self.tar(theirs))?;
                let made = first.image.history.iter().filter(|line| !line.empty_layer).nth(at);
                let created_by = made.and_then(|line| line.created_by.as_deref()).unwrap_or_default();
                let created_by = created_by.trim_end_matches(" # buildkit").to_owned();
                let count = found.len();
                let paths = found.into_iter().take(PathDifference::MOST).collect();
                return Ok(PartDifference::Layer { number: at + 1, of, created_by, paths, count });
            }
        }
        if first.layers.len() != other.layers.len() {
            return Ok(PartDifference::Layers { first: of, other: other.layers.len() });
        }
        let (field, first, other) = json::difference(&first.config.bytes, &other.config.bytes);
        Ok(PartDifference::Config { field, first, other })
    }

    fn loaded(&self, image: &BuiltImage) -> Result<LoadedImage, Error> {
        let digest = image.manifest;
        let found = Stored::read(&self.store, &digest)?.and_then(|stored| stored.images.into_iter().next());
        found.ok_or_else(|| StoreError::NoBlob { digest }.into())
    }

    fn tar(&self, layer: &Layer) -> Result<Box<dyn Read>, Error> {
        Ok(self.store.open_layer_tar(layer)?)
    }
}

/// The date of what is built, where nobody says one.
fn assumed_date(context: &ContextSource) -> SourceDate {
    match context {
        ContextSource::Directory(path) if kiln_git::commit_time(path).is_ok() => SourceDate::Commit,
        ContextSource::Git(_) => SourceDate::Commit,
        _ => SourceDate::Seconds(0),
    }
}
