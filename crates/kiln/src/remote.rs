//! Builds from a program with threads of its own: the engine runs in a child process.
//!
//! The child is this same program, started again; [`init`](crate::init) serves it. The request goes over on its
//! standard input, events and outcome come back on its standard output, one JSON value a line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use kiln_core::{Cancel, Event, IoResultExt as _};
use kiln_runtime::{EnterOptions, Isolation};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Snapshotter};
use crate::{BuildOutcome, BuildRequest, ContextSource, Error};

/// What the child is called: argv[0] says that it is one.
const ENGINE: &str = "kiln-engine";

/// Builds images. Plain and cheap: each build has a process of its own.
#[derive(Debug, Default)]
pub struct Builder {
    cancel: Cancel,
    choice: Choice,
}

/// What the engine is not to choose by itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Choice {
    snapshotter: Option<Snapshotter>,
    isolation: Option<Isolation>,
}

/// A line from the child.
#[derive(Serialize, Deserialize)]
enum Message {
    Event(Event),
    Ended(Box<Result<BuildOutcome, Error>>),
}

impl Builder {
    /// Makes a builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what interrupts this builder's builds.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Makes file trees in this way and no other. Without, the engine takes the best that the machine allows.
    #[must_use]
    pub fn snapshotter(mut self, snapshotter: Snapshotter) -> Self {
        self.choice.snapshotter = Some(snapshotter);
        self
    }

    /// Puts this around steps and nothing else: a build ends with an error where it cannot be had. Without, it is namespaces,
    /// and for root where there are none, a chroot, which is no boundary.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.choice.isolation = Some(isolation);
        self
    }

    /// Builds; `on_event` is called on this thread as things happen. Relative paths of the request are those of this
    /// process.
    ///
    /// # Errors
    /// As [`Engine::build`](crate::Engine::build), of the very type; or the child could not be started or died.
    pub fn build(
        &self,
        request: &BuildRequest,
        mut on_event: impl FnMut(Event),
    ) -> Result<BuildOutcome, Error> {
        if request.context == ContextSource::Stdin {
            return Err(Error::NotItsStdin);
        }
        let mut child = start()?;
        let text = serde_json::to_string(&(request, &self.choice))
            .map_err(std::io::Error::from)
            .at("write", "the request")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).at("send the request to", ENGINE)?;
        }
        let pid = child.id();
        // The pid stays the child's until it is waited for, which happens after the guard is gone.
        let guard = self.cancel.on_cancel(move || {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap_or(0));
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            }
        });
        let mut ended = None;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line.at("read from", ENGINE)?;
                match serde_json::from_str(&line) {
                    Ok(Message::Event(event)) => on_event(event),
                    Ok(Message::Ended(result)) => ended = Some(*result),
                    // The engine writes nothing else; a line that is none of these has no reader.
                    Err(_) => {}
                }
            }
        }
        drop(guard);
        let status = child.wait().at("wait for", ENGINE)?;
        ended.unwrap_or_else(|| Err(Error::EngineLost { status: status.to_string() }))
    }
}

/// Serves re-executed children of the library: the init of a step, the engine of a [`Builder`], the shell that
/// a step is entered with. Call it first thing in
/// `main`, before any thread: it returns only in a process that is none of them.
pub fn init() {
    kiln_runtime::init();
    kiln_shell::init();
    if std::env::args_os().next().is_some_and(|name| name == ENGINE) {
        std::process::exit(serve());
    }
}

fn start() -> Result<Child, Error> {
    let program = "/proc/self/exe";
    Ok(Command::new(program)
        .arg0(ENGINE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .at("start", program)?)
}

fn serve() -> i32 {
    let out = Mutex::new(std::io::stdout());
    let send = |message: &Message| {
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        let mut out = out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A parent that is gone reads nothing; the build ends by the parent-death signal of its steps.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    };
    let result = serve_one(&|event: Event| send(&Message::Event(event)));
    let code = i32::from(result.is_err());
    send(&Message::Ended(Box::new(result)));
    code
}

fn serve_one(events: &dyn kiln_core::EventSink) -> Result<BuildOutcome, Error> {
    let text = std::io::read_to_string(std::io::stdin()).at("read", "the request")?;
    let (request, choice): (BuildRequest, Choice) =
        serde_json::from_str(&text).map_err(std::io::Error::from).at("read", "the request")?;
    let options = EnterOptions { isolation: choice.isolation, ..EnterOptions::default() };
    let mut engine = Engine::start_with(&request.root, &options)?;
    if let Some(snapshotter) = choice.snapshotter {
        engine = engine.snapshotter(snapshotter);
    }
    let cancel = Cancel::new();
    interrupt(&cancel).at("listen to", "signals")?;
    engine.build(&request, events, &cancel)
}

/// An interrupt from the parent (or the terminal) cancels.
fn interrupt(cancel: &Cancel) -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            cancel.cancel();
        }
    });
    Ok(())
}
