//! Lines, as `docker build --progress=plain` prints them.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use kiln::{CacheMountState, Event, LogStream, StepOutcome};

use super::Renderer;
use super::text::{bytes, seconds};

/// Prints each event as a line or two.
pub(crate) struct Plain {
    out: Box<dyn Write + Send>,
    titles: BTreeMap<u32, Step>,
    /// The step that printed last: another one's lines are set off by an empty line and its title again.
    last: Option<u32>,
}

struct Step {
    title: String,
    shown: bool,
    started: Option<Instant>,
    /// The log's last line, while it has no line end.
    partial: String,
    progress: BTreeMap<String, Item>,
}

#[derive(Default)]
struct Item {
    shown: Option<Instant>,
    done: bool,
}

impl Plain {
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, titles: BTreeMap::new(), last: None }
    }

    fn line(&mut self, step: u32, text: &str) {
        if self.last != Some(step) {
            if self.last.is_some() {
                self.write("\n");
            }
            self.last = Some(step);
            if let Some(entry) = self.titles.get_mut(&step) {
                let dots = if entry.shown { " ..." } else { "" };
                let title = format!("#{step} {}{dots}\n", one_line(&entry.title));
                entry.shown = true;
                self.write(&title);
            }
        }
        if !text.is_empty() {
            self.write(&format!("#{step} {text}\n"));
        }
    }

    fn write(&mut self, text: &str) {
        // A closed standard error must not end the build.
        let _ = self.out.write_all(text.as_bytes());
    }

    fn log(&mut self, step: u32, text: &str) {
        let Some(entry) = self.titles.get_mut(&step) else { return };
        let stamp = entry.started.map_or(0.0, |t| t.elapsed().as_secs_f64());
        entry.partial.push_str(text);
        let Some(end) = entry.partial.rfind('\n') else { return };
        let rest = entry.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut entry.partial, rest);
        for line in whole.lines() {
            // A carriage return overwrites: what a terminal would show at the end is the last part.
            let shown = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or(line);
            self.line(step, &format!("{stamp:.3} {shown}"));
        }
    }

    fn progress(&mut self, step: u32, item: &str, current: u64, total: Option<u64>) {
        const EVERY: Duration = Duration::from_secs(2);
        let Some(entry) = self.titles.get_mut(&step) else { return };
        let state = entry.progress.entry(item.to_owned()).or_default();
        let done = total == Some(current);
        let now = Instant::now();
        let due = state.shown.is_none_or(|shown| now.duration_since(shown) >= EVERY);
        if state.done || !(due || done) {
            return;
        }
        state.shown = Some(now);
        state.done = done;
        let total = total.map_or(String::new(), |total| format!(" / {}", bytes(total)));
        let end = if done { " done" } else { "" };
        self.line(step, &format!("{item} {}{total}{end}", bytes(current)));
    }

    fn flush_partial(&mut self, step: u32) {
        if self.titles.get(&step).is_some_and(|entry| !entry.partial.is_empty()) {
            self.log(step, "\n");
        }
    }
}

impl Renderer for Plain {
    fn event(&mut self, event: &Event) {
        match event {
            Event::PlanReady { .. } => {}
            Event::StepDeclared { step, title, .. } => {
                let entry = Step {
                    title: title.clone(),
                    shown: false,
                    started: None,
                    partial: String::new(),
                    progress: BTreeMap::new(),
                };
                self.titles.insert(*step, entry);
            }
            Event::StepStarted { step } => {
                if let Some(entry) = self.titles.get_mut(step) {
                    entry.started = Some(Instant::now());
                }
                self.line(*step, "");
            }
            Event::StepCached { step } => self.line(*step, "CACHED"),
            Event::StepLog { step, stream: LogStream::Stdout | LogStream::Stderr, text } => {
                self.log(*step, text)
            }
            Event::StepProgress { step, item, current, total } => {
                self.progress(*step, item, *current, *total)
            }
            Event::StepFinished { step, outcome, duration_us, .. } => {
                self.flush_partial(*step);
                let text = match outcome {
                    StepOutcome::Done => format!("DONE {}", seconds(Duration::from_micros(*duration_us))),
                    StepOutcome::Failed { message } => format!("ERROR: {message}"),
                    StepOutcome::Cancelled => "CANCELED".to_owned(),
                };
                self.line(*step, &text);
            }
            Event::CacheMount { step, id, state, .. } => match state {
                CacheMountState::Waiting { holder } => {
                    self.line(*step, &format!("waiting for cache {id:?}, held by {holder}"));
                }
                CacheMountState::Acquired { waited_us, .. } if *waited_us > 100_000 => {
                    let waited = seconds(Duration::from_micros(*waited_us));
                    self.line(*step, &format!("got cache {id:?} after {waited}"));
                }
                CacheMountState::Acquired { .. } => {}
            },
            Event::Warning { message, lines } => {
                let place = lines.map_or(String::new(), |(first, _)| format!(" (line {first})"));
                self.last = None;
                self.write(&format!("\nWARNING: {message}{place}\n"));
            }
            Event::Exported { output, digest, names } => {
                self.last = None;
                let digest = digest.map_or(String::new(), |digest| format!(" {digest}"));
                let names =
                    if names.is_empty() { String::new() } else { format!(" as {}", names.join(", ")) };
                self.write(&format!("\nexported {output}{digest}{names}\n"));
            }
        }
    }
}

/// A title may hold a heredoc's or a long command's line ends.
fn one_line(title: &str) -> String {
    title.split_whitespace().collect::<Vec<_>>().join(" ")
}
