//! What is known of a cache besides its content: `meta.json`.

use std::io::Write;
use std::path::Path;

use kiln_core::{CacheScope, IoError, IoResultExt};
use serde::{Deserialize, Serialize};

use super::count::Count;
use super::name;

/// So many targets and no more are remembered.
const MAX_TARGETS: usize = 16;

/// The file's content. Losing it loses no cache: the next use writes it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) id: String,
    pub(super) scope: CacheScope,
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) last_used: i64,
    /// What the last holder said of itself.
    pub(super) last_step: String,
    pub(super) targets: Vec<String>,
    /// Bytes on disk, as du(1) counts them.
    pub(super) size: u64,
    /// Files, directories not counted.
    pub(super) files: u64,
    /// Whether size and files are those of now.
    pub(super) counted: bool,
    /// Seconds since 1970: when they were counted; 0 before the first time.
    #[serde(default)]
    pub(super) counted_at: i64,
    #[serde(default)]
    pub(super) figures: CacheFigures,
    /// What a newer kiln knows besides: it stays.
    #[serde(flatten)]
    pub(super) more: serde_json::Map<String, serde_json::Value>,
}

/// What a cache was worth so far. Counted are differences of sizes between uses, not files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheFigures {
    /// Steps that used it.
    pub uses: u64,
    /// Of those, steps that found something in it.
    pub warm: u64,
    /// Bytes that the last step found, as they were last counted before it.
    pub found_bytes: u64,
    /// Files that it found.
    pub found_files: u64,
    /// Bytes that uses made it grow by, all together.
    pub added_bytes: u64,
    /// Files.
    pub added_files: u64,
    /// Bytes that uses made it shrink by.
    pub removed_bytes: u64,
    /// Files.
    pub removed_files: u64,
}

impl Meta {
    pub(super) fn new(id: &str, scope: &CacheScope) -> Self {
        let now = now();
        Self {
            id: id.to_owned(),
            scope: scope.clone(),
            created: now,
            last_used: now,
            last_step: String::new(),
            targets: Vec::new(),
            size: 0,
            files: 0,
            counted: false,
            counted_at: 0,
            figures: CacheFigures::default(),
            more: serde_json::Map::new(),
        }
    }

    /// Reads the meta of the cache in `dir`. If there is none, or nothing sound, the directory's name says what it is.
    pub(super) fn read(dir: &Path) -> Self {
        let text = std::fs::read(dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_else(|_| {
            let last = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let scope = name::to_scope(&last(dir.parent().unwrap_or(Path::new(""))));
            Self { created: 0, last_used: 0, ..Self::new(&name::to_id(&last(dir)), &scope) }
        })
    }

    /// Writes it, by rename. Not synced: after a power cut it may be gone, see above.
    pub(super) fn write(&self, dir: &Path) -> Result<(), IoError> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).at("write", &path)?;
        let mut file = tempfile::NamedTempFile::with_prefix_in(".meta", dir).at("create a file in", dir)?;
        file.write_all(&text).at("write", &path)?;
        file.persist(&path).map_err(|error| error.error).at("rename to", &path)?;
        Ok(())
    }

    /// Notes what a count gave after a use, or that there was none: a step that wrote may have changed the size, and a cache too
    /// large to be counted in passing is counted later.
    pub(super) fn counted(&mut self, read_only: bool, count: Option<Count>) {
        let Some(count) = count else {
            self.counted &= read_only;
            return;
        };
        let figures = &mut self.figures;
        figures.added_bytes += count.size.saturating_sub(self.size);
        figures.added_files += count.files.saturating_sub(self.files);
        figures.removed_bytes += self.size.saturating_sub(count.size);
        figures.removed_files += self.files.saturating_sub(count.files);
        (self.size, self.files, self.counted, self.counted_at) = (count.size, count.files, true, now());
    }

    /// Notes a step's use that ends now. It found what was last counted.
    pub(super) fn stepped(&mut self, step: &str, targets: &[String]) {
        let figures = &mut self.figures;
        figures.uses += 1;
        figures.warm += u64::from(self.files > 0);
        (figures.found_bytes, figures.found_files) = (self.size, self.files);
        self.used(step, targets);
    }

    /// Notes a use that ends now.
    pub(super) fn used(&mut self, step: &str, targets: &[String]) {
        self.last_used = now();
        step.clone_into(&mut self.last_step);
        for target in targets {
            if !self.targets.contains(target) && self.targets.len() < MAX_TARGETS {
                self.targets.push(target.clone());
            }
        }
    }
}

const FILE: &str = "meta.json";

/// Seconds since 1970, as the file system stamps them: a use is a fact about files and decides no result.
fn now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec
}
