//! Everything that is shown. The only place that prints.

mod ask;
mod diagnostics;
mod escapes;
mod failure;
mod live;
mod plain;
mod table;
mod text;
mod tty;
mod words;

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use kiln::{Event, EventSink};

pub(crate) use ask::{ask, ask_secretly};
pub(crate) use diagnostics::show_diagnostics;
pub(crate) use failure::show_failure;
use live::Live;
pub(crate) use table::{Columns, Table, clean};
pub(crate) use text::{age, bytes, counted, seconds};
pub(crate) use words::{one_line, reason};

use crate::args::ProgressMode;

/// Shows a build while it goes on.
pub(crate) struct Progress {
    renderer: Mutex<Box<dyn Renderer>>,
}

/// One way of showing events. What it holds could be rebuilt from the events.
trait Renderer: Send {
    fn event(&mut self, event: &Event);
    /// Nothing more will come.
    fn finish(&mut self) {}
}

impl Progress {
    /// Chooses a renderer: for `auto` a live list where standard error is a terminal, else lines.
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let tty = || Live::start(tty::Screen::new(crate::config::colours()));
        let renderer: Box<dyn Renderer> = match mode {
            ProgressMode::Tty => Box::new(tty()),
            ProgressMode::Auto if crate::config::live_terminal() => Box::new(tty()),
            ProgressMode::Auto | ProgressMode::Plain => Box::new(Live::start(plain::Plain::default())),
            ProgressMode::Json => Box::new(Json),
            ProgressMode::Quiet => Box::new(Quiet),
        };
        Self { renderer: Mutex::new(renderer) }
    }

    /// Ends the display: what is printed after it stays below.
    pub(crate) fn finish(&self) {
        self.renderer.lock().unwrap_or_else(PoisonError::into_inner).finish();
    }
}

impl EventSink for Progress {
    fn emit(&self, event: Event) {
        self.renderer.lock().unwrap_or_else(PoisonError::into_inner).event(&event);
    }
}

/// One JSON object a line on standard error, as docs/events.md fixes it.
struct Json;

impl Renderer for Json {
    fn event(&mut self, event: &Event) {
        let Ok(serde_json::Value::Object(mut line)) = serde_json::to_value(event) else { return };
        line.insert("v".to_owned(), 1.into());
        line.insert("time".to_owned(), jiff::Timestamp::now().to_string().into());
        // Nobody is left to read if standard error is closed; the build goes on.
        let _ = writeln!(std::io::stderr(), "{}", serde_json::Value::Object(line));
    }
}

struct Quiet;

impl Renderer for Quiet {
    fn event(&mut self, event: &Event) {
        if let Event::Warning { message, .. } = event {
            let _ = writeln!(std::io::stderr(), "warning: {message}");
        }
    }
}

/// Prints a result.
///
/// A reader that closed the pipe (`kiln images | head -1`) wants no more: that is no failure.
pub(crate) fn print(text: impl std::fmt::Display) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Prints bytes as they are, without a line end.
pub(crate) fn print_bytes(bytes: &[u8]) {
    if std::io::stdout().write_all(bytes).is_err() {
        std::process::exit(0);
    }
}

/// Prints a note that is no result.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
