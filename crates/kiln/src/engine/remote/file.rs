//! A file behind a URL.

use std::time::Instant;

use kiln_core::{Cancel, Canonical, Digest, Event, HttpOp, StepOutcome};
use kiln_registry::{Answer, DownloadError, Part, Validators, Wanted, redacted};
use kiln_store::{NewFile, RecordKind, SourceId};
use serde::{Deserialize, Serialize};

use super::Remotes;
use crate::Error;

/// What a URL meant when it was last asked. The URL itself is in no record: its query may be a key to the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Meant {
    /// What lets collection know that it is needed.
    source: SourceId,
    digest: Digest,
    validators: Validators,
}

/// Returns what a file is worth in a key: its name and its bytes. Its mode is always the same, and times are in no key.
pub(super) fn content(op: &HttpOp, digest: &Digest) -> Digest {
    let mut out = Canonical::new("remote file");
    out.str(&op.name).digest(digest);
    out.finish()
}

impl Remotes<'_> {
    /// Makes a file present: with a checksum and the file here without a request, else with one.
    pub(super) fn file(
        &self,
        op: &HttpOp,
        step: u32,
        late: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<(SourceId, Digest), Error> {
        let expected = op.checksum.map(|checksum| (SourceId::file(&op.name, &checksum), checksum));
        let here = || expected.clone().filter(|(source, _)| self.store.has_source(source));
        if let Some(found) = here() {
            self.reporter.cached(step);
            return Ok(found);
        }
        let key = key(op);
        let what = format!("fetch-{}", key.hex());
        let _turn = self.patience.turn(self.store, &what, &mut |holder| self.waits(step, holder), cancel)?;
        if let Some(found) = here() {
            self.reporter.cached(step);
            return Ok(found);
        }
        // Where only certain bytes will do, it is of no use to hear that others are the same as before.
        let known = match &expected {
            Some(_) => None,
            None => self.store.get_record::<Meant>(RecordKind::Source, &key.hex())?,
        };
        let known = known.filter(|meant| self.store.has_source(&meant.source));
        let mut arrival = Arrival { remotes: self, op, step, late, started: None, file: None, total: None };
        let result = arrival.fetch(&key, known, cancel);
        arrival.report(&result);
        result
    }
}

/// Names a URL in the store. The name of the file is part of it, for it is one of the source.
fn key(op: &HttpOp) -> Digest {
    let mut out = Canonical::new("url");
    out.str(&op.url).str(&op.name);
    out.finish()
}

/// A file on its way.
struct Arrival<'a> {
    remotes: &'a Remotes<'a>,
    op: &'a HttpOp,
    step: u32,
    late: &'a dyn Fn(),
    /// When the first byte came.
    started: Option<Instant>,
    file: Option<NewFile>,
    total: Option<u64>,
}

impl Arrival<'_> {
    fn fetch(
        &mut self,
        key: &Digest,
        known: Option<Meant>,
        cancel: &Cancel,
    ) -> Result<(SourceId, Digest), Error> {
        let Remotes { store, downloader, .. } = self.remotes;
        let wanted = Wanted { url: &self.op.url, known: known.as_ref().map(|meant| &meant.validators) };
        let answer = downloader.get(&wanted, cancel, &mut |part| self.take(part))?;
        let (file, validators) = match (answer, known, self.file.take()) {
            (Answer::Unchanged, Some(meant), _) => return Ok((meant.source, meant.digest)),
            (Answer::Complete(validators), _, Some(file)) => (file, validators),
            // The downloader says unchanged only of what is known, and complete only of what began.
            _ => return Err(DownloadError::Cancelled.into()),
        };
        self.progress(file.size());
        let digest = file.digest();
        if let Some(expected) = self.op.checksum.filter(|expected| *expected != digest) {
            return Err(Error::WrongChecksum { url: redacted(&self.op.url), expected, actual: digest });
        }
        let source = file.finish(validators.modified().unwrap_or(0))?;
        let meant = Meant { source, digest, validators };
        store.put_record(RecordKind::Source, &key.hex(), &meant)?;
        Ok((meant.source, digest))
    }

    fn take(&mut self, part: Part<'_>) -> Result<(), Error> {
        /// Often enough for a smooth display, seldom enough to cost nothing.
        const REPORT: u64 = 1 << 20;
        match part {
            Part::Begin(total) => {
                if self.started.is_none() {
                    self.started = Some(Instant::now());
                    (self.late)();
                    self.remotes.reporter.emit(Event::StepStarted { step: self.step });
                }
                self.total = total;
                match &mut self.file {
                    Some(file) => file.restart()?,
                    None => self.file = Some(self.remotes.store.begin_file(&self.op.name)?),
                }
                self.progress(0);
            }
            Part::Bytes(bytes) => {
                let Some(file) = &mut self.file else { return Ok(()) };
                let before = file.size();
                file.append(bytes)?;
                let now = file.size();
                if before / REPORT != now / REPORT {
                    self.progress(now);
                }
            }
        }
        Ok(())
    }

    fn progress(&self, current: u64) {
        let (step, item, total) = (self.step, self.op.name.clone(), self.total);
        self.remotes.reporter.emit(Event::StepProgress { step, item, current, total });
    }

    /// Says how it ended: cached if nothing came because nothing had to.
    fn report(&self, result: &Result<(SourceId, Digest), Error>) {
        let reporter = self.remotes.reporter;
        let outcome = match result {
            Ok(_) if self.started.is_none() => return reporter.cached(self.step),
            Ok(_) => StepOutcome::Done,
            Err(Error::Interrupted | Error::Download(DownloadError::Cancelled)) => StepOutcome::Cancelled,
            Err(error) => StepOutcome::Failed { message: error.to_string() },
        };
        if self.started.is_none() {
            reporter.emit(Event::StepStarted { step: self.step });
        }
        let duration = self.started.map(|started| started.elapsed()).unwrap_or_default();
        reporter.finished(self.step, outcome, duration, None);
    }
}
