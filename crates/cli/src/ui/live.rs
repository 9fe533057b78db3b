//! The thread that draws a build: events come in with their times, what they look like goes out.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln::Event;

use super::Renderer;

/// How often is drawn: often enough for tenths of seconds, seldom enough for slow terminals.
const TICK: Duration = Duration::from_millis(100);
/// Events that wait while a terminal is slow; then the build waits too, rather than fill memory. Each may have 64 KiB of a step's output.
const QUEUE: usize = 256;

/// What events look like: a pure function of events, times and the window. Times count from the build's start.
pub(crate) trait Display: Send + 'static {
    /// Takes an event in.
    fn take(&mut self, event: Event, now: Duration);
    /// Returns what to write now; the `last` time all that is left.
    fn draw(&mut self, now: Duration, window: Window, last: bool) -> String;
}

/// The terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// Hands events to the thread that draws.
pub(crate) struct Live {
    started: Instant,
    events: Option<SyncSender<(Event, Duration)>>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    pub(crate) fn start(display: impl Display) -> Self {
        let started = Instant::now();
        let (events, receiver) = sync_channel(QUEUE);
        let thread = std::thread::spawn(move || run(display, &receiver, started));
        Self { started, events: Some(events), thread: Some(thread) }
    }
}

impl Renderer for Live {
    fn event(&mut self, event: &Event) {
        if let Some(events) = &self.events {
            let _ = events.send((event.clone(), self.started.elapsed()));
        }
    }

    fn finish(&mut self) {
        self.events = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.finish();
    }
}

fn run(mut display: impl Display, events: &Receiver<(Event, Duration)>, started: Instant) {
    let mut open = true;
    while open {
        let next = Instant::now() + TICK;
        while Instant::now() < next {
            match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok((event, at)) => display.take(event, at),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        let text = display.draw(started.elapsed(), window(), !open);
        if !text.is_empty() {
            // A closed standard error must not end the build.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        }
    }
}

fn window() -> Window {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok().filter(|size| size.ws_col > 0);
    size.map_or(Window { columns: 80, rows: 24 }, |size| Window {
        columns: usize::from(size.ws_col).max(20),
        rows: usize::from(size.ws_row).max(3),
    })
}
