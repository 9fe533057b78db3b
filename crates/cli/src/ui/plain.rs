//! Lines, as `docker build --progress=plain` prints them: `#5 [2/4] RUN make`, `#5 0.123 text`, `#5 DONE 1.2s`.
//!
//! Steps run side by side, but are shown one at a time: lines of the others wait, for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln::{CacheMountState, Event, StepOutcome, StepUsage};

use super::escapes::{Colours, clean};
use super::live::{Display, Window};
use super::text::bytes;
use super::words::{
    exported, one_line, overwritten, runs_because, waiting, waiting_for, warning, whole_lines,
};

/// How long lines of a step wait for another that is shown: two talkative steps shall not alternate line by line, and
/// a silent one shall not hide the rest.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a step's log that may wait.
const MOST_WAITING: usize = 1 << 20;
/// How often the progress of one item is told.
const EVERY: Duration = Duration::from_secs(2);
/// A wait for a cache mount that is worth a line.
const LONG_WAIT_US: u64 = 100_000;
/// What a step used is told if its process ran that long, microseconds.
const WORTH_TELLING: u64 = 1_000_000;

/// Prints each event as a line or two.
#[derive(Default)]
pub(crate) struct Plain {
    steps: BTreeMap<u32, Step>,
    /// The step that is shown.
    current: Option<u32>,
    /// Lines that belong to no step.
    notes: Vec<String>,
    /// Whether anything was written: blocks are set off by an empty line.
    begun: bool,
}

#[derive(Default)]
struct Step {
    title: String,
    started: Duration,
    ended: bool,
    lines: Vec<String>,
    /// Of its log in them.
    bytes: usize,
    /// Since when it has something to show while another is shown.
    waits: Option<Duration>,
    /// The log's last line, while it has no line end.
    partial: String,
    items: BTreeMap<String, Item>,
}

#[derive(Default)]
struct Item {
    shown: Option<Duration>,
    done: bool,
}

impl Display for Plain {
    fn take(&mut self, event: Event, now: Duration) {
        match event {
            Event::PlanReady { .. } => {}
            Event::StepDeclared { step, title, .. } => {
                self.steps.insert(step, Step { title: one_line(&title), ..Step::default() });
            }
            Event::StepStarted { step } => self.with(step, now, |s| s.started = now),
            Event::StepReason { step, why } => self.with(step, now, |s| s.lines.extend(runs_because(&why))),
            Event::StepCached { step } => self.with(step, now, |s| {
                s.lines.push("CACHED".to_owned());
                s.ended = true;
            }),
            Event::StepWaiting { step, holder } => {
                if let Some(holder) = holder {
                    self.with(step, now, |s| s.lines.push(waiting_for(&holder)));
                }
            }
            Event::StepLog { step, text, .. } => self.with(step, now, |s| s.log(&text, now)),
            Event::StepProgress { step, item, current, total } => {
                let Some(s) = self.steps.get_mut(&step) else { return };
                if let Some(line) = s.progress(item, current, total, now) {
                    self.with(step, now, |s| s.lines.push(line));
                }
            }
            Event::StepFinished { step, outcome, duration_us, usage } => self.with(step, now, |s| {
                if !s.partial.is_empty() {
                    s.log("\n", now);
                }
                s.lines.push(match outcome {
                    StepOutcome::Done => {
                        let used = usage.filter(|usage| usage.wall_us >= WORTH_TELLING).map(used);
                        let seconds = Duration::from_micros(duration_us).as_secs_f64();
                        format!("DONE {seconds:.1}s{}", used.unwrap_or_default())
                    }
                    StepOutcome::Failed { message } => format!("ERROR: {message}"),
                    StepOutcome::Cancelled => "CANCELED".to_owned(),
                });
                s.ended = true;
            }),
            Event::CacheMount { step, id, state, .. } => match state {
                CacheMountState::Waiting { holder } => {
                    self.with(step, now, |s| s.lines.push(waiting(&id, &holder)));
                }
                CacheMountState::Acquired { waited_us, .. } if waited_us > LONG_WAIT_US => {
                    let waited = Duration::from_micros(waited_us).as_secs_f64();
                    self.with(step, now, |s| s.lines.push(format!("got cache {id:?} after {waited:.1}s")));
                }
                CacheMountState::Acquired { .. } => {}
            },
            Event::Warning { message, lines } => {
                self.notes.push(format!("WARNING: {}", warning(&message, lines)));
            }
            Event::Exported { output, digest, names } => self.notes.push(exported(&output, digest, &names)),
        }
    }

    fn draw(&mut self, now: Duration, _window: Window, last: bool) -> String {
        let mut out = String::new();
        loop {
            let next = self.next();
            if let Some(number) = self.current {
                let Some(step) = self.steps.get_mut(&number) else { break };
                step.bytes = 0;
                for line in step.lines.drain(..) {
                    out.push_str(&format!("#{number} {line}\n"));
                }
                if !step.ended {
                    let waiting = next.and_then(|next| self.steps.get(&next));
                    let patient = |next: &Step| {
                        let waited = next.waits.map_or(Duration::ZERO, |since| now.saturating_sub(since));
                        !last && waited < PATIENCE && next.bytes < MOST_WAITING
                    };
                    if waiting.is_none_or(patient) {
                        break;
                    }
                    out.push_str(&format!("#{number} ...\n"));
                }
                self.current = None;
            }
            let Some(number) = next else { break };
            self.set_off(&mut out);
            if let Some(step) = self.steps.get_mut(&number) {
                out.push_str(&format!("#{number} {}\n", step.title));
                step.waits = None;
            }
            self.current = Some(number);
        }
        for note in std::mem::take(&mut self.notes) {
            if let Some(number) = self.current.take() {
                out.push_str(&format!("#{number} ...\n"));
            }
            self.set_off(&mut out);
            out.push_str(&note);
            out.push('\n');
        }
        out
    }
}

impl Plain {
    /// Changes a step, which has something to show then.
    fn with(&mut self, step: u32, now: Duration, change: impl FnOnce(&mut Step)) {
        let current = self.current == Some(step);
        let Some(step) = self.steps.get_mut(&step) else { return };
        change(step);
        if !current {
            step.waits.get_or_insert(now);
        }
    }

    /// Returns the step to show next: one that ended, else the one that waits longest.
    fn next(&self) -> Option<u32> {
        let waiting = self.steps.iter().filter(|(_, step)| step.waits.is_some());
        let order = |number, step: &Step| (!step.ended, step.waits.filter(|_| !step.ended), number);
        waiting.min_by_key(|(number, step)| order(**number, step)).map(|(number, _)| *number)
    }

    fn set_off(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.begun, true) {
            out.push('\n');
        }
    }
}

impl Step {
    fn log(&mut self, text: &str, now: Duration) {
        let stamp = now.saturating_sub(self.started).as_secs_f64();
        let whole = whole_lines(&mut self.partial, text);
        let shown = |line| format!("{stamp:.3} {}", clean(overwritten(line), Colours::Keep));
        self.lines.extend(whole.lines().map(shown));
        self.bytes += whole.len();
    }

    fn progress(&mut self, item: String, current: u64, total: Option<u64>, now: Duration) -> Option<String> {
        let state = self.items.entry(item.clone()).or_default();
        let done = total == Some(current);
        let due = state.shown.is_none_or(|shown| now.saturating_sub(shown) >= EVERY);
        if state.done || !(due || done) {
            return None;
        }
        *state = Item { shown: Some(now), done };
        let total = total.map_or(String::new(), |total| format!(" / {}", bytes(total)));
        let end = if done { " done" } else { "" };
        Some(format!("{item} {}{total}{end}", bytes(current)))
    }
}

/// ` (cpu 3.2s, memory 120 MB, read 1 MB, wrote 80 MB)`.
fn used(usage: StepUsage) -> String {
    let cpu = Duration::from_micros(usage.user_us + usage.system_us).as_secs_f64();
    let [memory, read, wrote] = [usage.peak_rss_kib * 1024, usage.read_bytes, usage.written_bytes].map(bytes);
    format!(" (cpu {cpu:.1}s, memory {memory}, read {read}, wrote {wrote})")
}

#[cfg(test)]
mod tests;
