//! A live list on a terminal: finished steps scroll away above, running ones stay below with the time they have
//! taken, the tail of their output and the progress of what they move.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kiln::{CacheMountState, Event, StepOutcome};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::live::{Display, Window};
use super::text::{bytes, seconds};
use super::words::{
    exported, one_line, overwritten, printable, runs_because, waiting, waiting_for, warning, whole_lines,
};

/// Lines shown under a running step, if the window has room.
const TAIL: usize = 4;
const INDENT: &str = "    ";

/// The list.
pub(crate) struct Screen {
    colours: bool,
    steps: BTreeMap<u32, Step>,
    /// Lines that go above the live part with the next drawing.
    above: Vec<String>,
    /// Columns of each line of the live part that is on the screen.
    drawn: Vec<usize>,
    cached: usize,
}

#[derive(Default)]
struct Step {
    title: String,
    started: Option<Duration>,
    ended: bool,
    waiting: Option<String>,
    tail: VecDeque<String>,
    partial: String,
    items: BTreeMap<String, (u64, Option<u64>)>,
}

/// Select Graphic Rendition.
#[derive(Clone, Copy)]
enum Style {
    Good,
    Bad,
    Attention,
    Running,
    Hit,
    Faint,
}

impl Display for Screen {
    fn take(&mut self, event: Event, now: Duration) {
        match event {
            Event::PlanReady { .. } => {}
            Event::StepDeclared { step, title, .. } => {
                self.steps.insert(step, Step { title: one_line(&title), ..Step::default() });
            }
            Event::StepStarted { step } => self.with(step, |s| s.started = Some(now)),
            Event::StepReason { step, why } => {
                let Some(title) = self.steps.get(&step).map(|step| step.title.clone()) else { return };
                self.above.push(format!(" {} {title}", self.paint(Style::Attention, "?")));
                for line in runs_because(&why) {
                    self.above.push(format!("{INDENT}{}", self.paint(Style::Faint, &line)));
                }
            }
            Event::StepCached { step } => {
                self.cached += 1;
                self.end(step, (Style::Hit, "="), (Style::Faint, "CACHED"));
            }
            Event::StepWaiting { step, holder } => {
                self.with(step, |s| s.waiting = holder.as_deref().map(waiting_for));
            }
            Event::StepLog { step, text, .. } => self.with(step, |s| s.log(&text)),
            Event::StepProgress { step, item, current, total } => {
                self.with(step, |s| {
                    s.items.insert(item, (current, total));
                });
            }
            Event::StepFinished { step, outcome, duration_us, .. } => {
                let time = seconds(Duration::from_micros(duration_us));
                match outcome {
                    StepOutcome::Done => self.end(step, (Style::Good, "✔"), (Style::Faint, &time)),
                    StepOutcome::Failed { .. } => self.end(step, (Style::Bad, "✘"), (Style::Bad, &time)),
                    StepOutcome::Cancelled => {
                        self.end(step, (Style::Attention, "-"), (Style::Faint, "cancelled"));
                    }
                }
            }
            Event::CacheMount { step, id, state, .. } => self.with(step, |s| {
                s.waiting = match state {
                    CacheMountState::Waiting { holder } => Some(waiting(&id, &holder)),
                    CacheMountState::Acquired { .. } => None,
                };
            }),
            Event::Warning { message, lines } => {
                let line =
                    format!("{} {}", self.paint(Style::Attention, "warning:"), warning(&message, lines));
                self.above.push(line);
            }
            Event::Exported { output, digest, names } => {
                let mark = self.paint(Style::Good, "✔");
                self.above.push(format!(" {mark} {}", exported(&output, digest, &names)));
            }
        }
    }

    /// Replaces the live part by what goes above it and the live part as it is now, in one write.
    fn draw(&mut self, now: Duration, window: Window, last: bool) -> String {
        let mut out = String::new();
        // A narrower window has wrapped what was drawn.
        let rows: usize = self.drawn.iter().map(|width| width.div_ceil(window.columns).max(1)).sum();
        if rows > 0 {
            out.push_str(&format!("\x1b[{}A\r\x1b[0J", rows.min(window.rows)));
        }
        for line in std::mem::take(&mut self.above) {
            out.push_str(&fit_title(&line, window.columns));
            out.push('\n');
        }
        let lines = if last { Vec::new() } else { self.live(now, window) };
        self.drawn = lines.iter().map(|line| width(line)).collect();
        for line in lines {
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

impl Screen {
    pub(crate) fn new(colours: bool) -> Self {
        Self { colours, steps: BTreeMap::new(), above: Vec::new(), drawn: Vec::new(), cached: 0 }
    }

    fn with(&mut self, step: u32, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.get_mut(&step) {
            change(step);
        }
    }

    /// A step scrolls away.
    fn end(&mut self, step: u32, mark: (Style, &str), result: (Style, &str)) {
        let (mark, result) = (self.paint(mark.0, mark.1), self.paint(result.0, result.1));
        let Some(step) = self.steps.get_mut(&step) else { return };
        let title = std::mem::take(&mut step.title);
        *step = Step { ended: true, ..Step::default() };
        // The title is cut when the window's width is known.
        self.above.push(format!(" {mark} {title}{TITLE_END}{result}"));
    }

    fn live(&self, now: Duration, window: Window) -> Vec<String> {
        let running: Vec<(&Step, Duration)> = self
            .steps
            .values()
            .filter(|step| !step.ended)
            .filter_map(|step| Some((step, step.started?)))
            .collect();
        if running.is_empty() {
            return Vec::new();
        }
        // A line is kept free: what does not fit would scroll and could not be taken back.
        let room = window.rows.saturating_sub(2).max(1);
        let shown = if running.len() > room { room - 1 } else { running.len() };
        let tail = TAIL.min((room - shown) / shown.max(1));
        let done = self.steps.values().filter(|step| step.ended).count();
        let cached = if self.cached > 0 { format!(", {} cached", self.cached) } else { String::new() };
        let mut lines = vec![format!("[+] {} {done}/{}{cached}", seconds(now), self.steps.len())];
        for (step, started) in &running[..shown] {
            let mark = self.paint(Style::Running, "=>");
            let time = self.paint(Style::Running, &seconds(now.saturating_sub(*started)));
            lines.push(fit_title(&format!(" {mark} {}{TITLE_END}{time}", step.title), window.columns));
            for line in step.below(tail) {
                let text = cut(&line.1, window.columns - INDENT.len());
                lines.push(format!("{INDENT}{}", self.paint(line.0, &text)));
            }
        }
        if shown < running.len() {
            lines.push(format!("{INDENT}and {} more", running.len() - shown));
        }
        lines
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match style {
            Style::Good => 32,
            Style::Bad => 31,
            Style::Attention => 33,
            Style::Running => 34,
            Style::Hit => 36,
            Style::Faint => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl Step {
    fn log(&mut self, text: &str) {
        let whole = whole_lines(&mut self.partial, text);
        // Of a flood only the end is looked at.
        let last: Vec<&str> = whole.lines().rev().take(TAIL).collect();
        for line in last.into_iter().rev() {
            self.tail.push_back(printable(overwritten(line)).into_owned());
            if self.tail.len() > TAIL {
                self.tail.pop_front();
            }
        }
    }

    /// What is shown below its title: what it waits for, what is on its way, the last lines.
    fn below(&self, room: usize) -> Vec<(Style, String)> {
        let waiting = self.waiting.iter().map(|text| (Style::Attention, text.clone()));
        let moving = self.items.iter().filter(|(_, (current, total))| *total != Some(*current));
        let moving = moving.map(|(item, (current, total))| {
            let total = total.map_or(String::new(), |total| format!(" / {}", bytes(total)));
            (Style::Faint, format!("{item} {}{total}", bytes(*current)))
        });
        let mut lines: Vec<_> = waiting.chain(moving).take(room).collect();
        let tail = self.tail.iter().skip(self.tail.len().saturating_sub(room - lines.len()));
        lines.extend(tail.map(|line| (Style::Faint, line.clone())));
        lines
    }
}

/// Stands between a title, which may be cut, and what follows it, which may not. No title has it: it is a control
/// character.
const TITLE_END: char = '\x1f';

/// Cuts the title in a line so that the line fits. A line without a title stays whole.
fn fit_title(line: &str, columns: usize) -> String {
    let Some((title, rest)) = line.split_once(TITLE_END) else { return line.to_owned() };
    format!("{} {rest}", cut(title, columns.saturating_sub(width(rest) + 2)))
}

/// Cuts a line to so many columns. Escape sequences take none and are kept.
fn cut(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let mut out = String::new();
    let mut left = columns.saturating_sub(1);
    let mut escape = false;
    for c in line.chars() {
        escape |= c == '\x1b';
        if !escape {
            let width = c.width().unwrap_or(0);
            if width > left {
                break;
            }
            left -= width;
        }
        out.push(c);
        escape &= !c.is_ascii_alphabetic();
    }
    out.push('…');
    out
}

/// Returns how many columns a line takes.
fn width(line: &str) -> usize {
    printable(line).width()
}

#[cfg(test)]
mod tests;
