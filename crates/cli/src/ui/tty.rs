//! A live list on a terminal: finished steps scroll away above, running ones stay below with the time they have
//! taken, the tail of their output and the progress of what they move.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln::{CacheMountState, Event, StepOutcome};

use super::Renderer;
use super::text::{bytes, seconds};

/// How often the live part is drawn again: often enough for tenths of seconds, seldom enough for slow terminals.
const TICK: Duration = Duration::from_millis(100);
/// Lines of output shown under a running step.
const TAIL: usize = 4;

/// Hands events to the thread that draws.
pub(crate) struct Tty {
    events: Option<Sender<Event>>,
    thread: Option<JoinHandle<()>>,
}

impl Tty {
    pub(crate) fn start() -> Self {
        let (events, receiver) = channel();
        let thread = std::thread::spawn(move || Screen::new().run(&receiver));
        Self { events: Some(events), thread: Some(thread) }
    }
}

impl Renderer for Tty {
    fn event(&mut self, event: &Event) {
        if let Some(events) = &self.events {
            let _ = events.send(event.clone());
        }
    }

    fn finish(&mut self) {
        self.events = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Screen {
    started: Instant,
    steps: BTreeMap<u32, Step>,
    /// Lines of the live part on the screen now.
    drawn: usize,
    done: usize,
}

struct Step {
    title: String,
    started: Option<Instant>,
    ended: bool,
    waiting: Option<String>,
    tail: VecDeque<String>,
    partial: String,
    items: BTreeMap<String, (u64, Option<u64>)>,
}

impl Screen {
    fn new() -> Self {
        Self { started: Instant::now(), steps: BTreeMap::new(), drawn: 0, done: 0 }
    }

    fn run(mut self, events: &Receiver<Event>) {
        let mut next = Instant::now() + TICK;
        loop {
            let mut above = Vec::new();
            let open = loop {
                match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(event) => above.extend(self.take(event)),
                    Err(RecvTimeoutError::Timeout) => break true,
                    Err(RecvTimeoutError::Disconnected) => break false,
                }
                if Instant::now() >= next {
                    break true;
                }
            };
            next = Instant::now() + TICK;
            self.draw(&above, open);
            if !open {
                return;
            }
        }
    }

    /// Takes an event in; returns lines that scroll away above the live part.
    fn take(&mut self, event: Event) -> Option<String> {
        match event {
            Event::PlanReady { .. } => None,
            Event::StepDeclared { step, title, .. } => {
                let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
                self.steps.insert(step, Step::new(title));
                None
            }
            Event::StepStarted { step } => {
                self.steps.get_mut(&step)?.started = Some(Instant::now());
                None
            }
            Event::StepCached { step } => {
                self.done += 1;
                let step = self.steps.get_mut(&step)?;
                step.ended = true;
                Some(format!("\x1b[36m = \x1b[0m{} \x1b[2mCACHED\x1b[0m", step.title))
            }
            Event::StepLog { step, text, .. } => {
                self.steps.get_mut(&step)?.log(&text);
                None
            }
            Event::StepProgress { step, item, current, total } => {
                self.steps.get_mut(&step)?.items.insert(item, (current, total));
                None
            }
            Event::StepFinished { step, outcome, duration_us, .. } => {
                self.done += 1;
                let step = self.steps.get_mut(&step)?;
                step.ended = true;
                let time = seconds(Duration::from_micros(duration_us));
                Some(match outcome {
                    StepOutcome::Done => format!("\x1b[32m ✔ \x1b[0m{} \x1b[2m{time}\x1b[0m", step.title),
                    StepOutcome::Failed { .. } => {
                        format!("\x1b[31m ✘ \x1b[0m{} \x1b[31m{time}\x1b[0m", step.title)
                    }
                    StepOutcome::Cancelled => {
                        format!("\x1b[33m - \x1b[0m{} \x1b[2mcancelled\x1b[0m", step.title)
                    }
                })
            }
            Event::CacheMount { step, id, state, .. } => {
                self.steps.get_mut(&step)?.waiting = match state {
                    CacheMountState::Waiting { holder } => {
                        Some(format!("waiting for cache {id:?}, held by {holder}"))
                    }
                    CacheMountState::Acquired { .. } => None,
                };
                None
            }
            Event::Warning { message, lines } => {
                let place = lines.map_or(String::new(), |(first, _)| format!(" (line {first})"));
                Some(format!("\x1b[33mwarning:\x1b[0m {message}{place}"))
            }
            Event::Exported { output, digest, names } => {
                let digest = digest.map_or(String::new(), |digest| format!(" {digest}"));
                let names =
                    if names.is_empty() { String::new() } else { format!(" as {}", names.join(", ")) };
                Some(format!("\x1b[32m ✔ \x1b[0mexported {output}{digest}{names}"))
            }
        }
    }

    /// Replaces the live part by `above` and the live part as it is now, in one write.
    fn draw(&mut self, above: &[String], live: bool) {
        let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
        let width = size.map_or(80, |s| usize::from(s.ws_col).max(20));
        let height = size.map_or(24, |s| usize::from(s.ws_row).max(4));
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A\r", self.drawn));
        }
        out.push_str("\x1b[0J");
        for line in above {
            out.push_str(&clip(line, width));
            out.push('\n');
        }
        let mut lines = if live { self.live() } else { Vec::new() };
        // What does not fit would scroll and could not be taken back.
        let room = height.saturating_sub(1);
        if lines.len() > room {
            lines.drain(..lines.len() - room);
        }
        self.drawn = lines.len();
        for line in lines {
            out.push_str(&clip(&line, width));
            out.push('\n');
        }
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(out.as_bytes());
    }

    fn live(&self) -> Vec<String> {
        let running: Vec<&Step> = self.steps.values().filter(|s| s.started.is_some() && !s.ended).collect();
        if running.is_empty() {
            return Vec::new();
        }
        let mut lines =
            vec![format!("[+] {} {}/{}", seconds(self.started.elapsed()), self.done, self.steps.len())];
        for step in running {
            let time = step.started.map_or(String::new(), |t| seconds(t.elapsed()));
            lines.push(format!("\x1b[34m => \x1b[0m{} \x1b[34m{time}\x1b[0m", step.title));
            if let Some(waiting) = &step.waiting {
                lines.push(format!("    \x1b[33m{waiting}\x1b[0m"));
            }
            for (item, (current, total)) in step.items.iter().filter(|(_, (c, t))| *t != Some(*c)).take(TAIL)
            {
                let total = total.map_or(String::new(), |total| format!(" / {}", bytes(total)));
                lines.push(format!("    \x1b[2m{item} {}{total}\x1b[0m", bytes(*current)));
            }
            lines.extend(step.tail.iter().map(|line| format!("    \x1b[2m{line}\x1b[0m")));
        }
        lines
    }
}

impl Step {
    fn new(title: String) -> Self {
        Self {
            title,
            started: None,
            ended: false,
            waiting: None,
            tail: VecDeque::new(),
            partial: String::new(),
            items: BTreeMap::new(),
        }
    }

    fn log(&mut self, text: &str) {
        self.partial.push_str(text);
        while let Some(end) = self.partial.find('\n') {
            let rest = self.partial.split_off(end + 1);
            let line = std::mem::replace(&mut self.partial, rest);
            let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
            // A step's own escape sequences would move our cursor.
            let line: String =
                line.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect();
            self.tail.push_back(line);
            if self.tail.len() > TAIL {
                self.tail.pop_front();
            }
        }
    }
}

/// Cuts a line to `width` columns, escape sequences not counted, colours ended.
fn clip(line: &str, width: usize) -> String {
    let mut out = String::new();
    let mut columns = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            out.push(c);
            for c in chars.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            columns += 1;
            if columns == width && chars.clone().next().is_some() {
                out.push('…');
                break;
            }
            out.push(c);
        }
    }
    out.push_str("\x1b[0m");
    out
}
