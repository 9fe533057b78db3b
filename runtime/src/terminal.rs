//! The caller's terminal, relayed to a step's own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kiln_core::{IoError, IoResultExt};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::consts::SIGWINCH;

/// Standard input as a descriptor: what std buffers must not be mixed with what is relayed.
const STDIN: std::os::fd::BorrowedFd<'static> = rustix::stdio::stdin();

/// End of file, as typed: what a terminal is told when the input ends.
const END_OF_TRANSMISSION: u8 = 4;

/// Rows and columns of the caller's terminal.
pub(crate) fn window() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Input and window size on their way to the step. Puts the terminal back as it was on drop.
pub(crate) struct Relay {
    saved: Option<Termios>,
    resized: UnixStream,
    hook: signal_hook::SigId,
    has_input: bool,
    /// Read, but not taken by the step yet.
    pending: Vec<u8>,
    terminal: Option<OwnedFd>,
}

impl Relay {
    /// Puts the terminal on standard input, if there is one, into raw mode.
    pub(crate) fn start(has_input: bool) -> Result<Self, IoError> {
        let (resized, raise) = UnixStream::pair().at("make", "a socket")?;
        resized.set_nonblocking(true).at("make", "a socket")?;
        let hook = signal_hook::low_level::pipe::register(SIGWINCH, raise).at("catch", "SIGWINCH")?;
        let mut this = Self { saved: None, resized, hook, has_input, pending: Vec::new(), terminal: None };
        if has_input && let Ok(saved) = tcgetattr(io::stdin()) {
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &raw).at("set up", "the terminal")?;
            this.saved = Some(saved);
        }
        Ok(this)
    }

    /// Begins to relay to the step's terminal, known by its other side.
    pub(crate) fn attach(&mut self, terminal: &OwnedFd) -> Result<(), IoError> {
        let terminal = terminal.try_clone().at("copy", "the step's terminal")?;
        // A step that reads nothing must not hold up its own output.
        rustix::fs::fcntl_setfl(&terminal, rustix::fs::OFlags::NONBLOCK)
            .at("set up", "the step's terminal")?;
        self.terminal = Some(terminal);
        self.resize()
    }

    /// What to wait for; as many each time as [`turn`](Self::turn) takes.
    pub(crate) fn wanted(&self) -> [PollFd<'_>; 3] {
        let idle = PollFlags::empty();
        let input = if self.reads() { PollFlags::IN } else { idle };
        let output = if self.pending.is_empty() { idle } else { PollFlags::OUT };
        // A descriptor that nothing is wanted of still tells of its end, endlessly: the socket, which has none, stands in.
        let input_fd = if self.reads() { STDIN.as_fd() } else { self.resized.as_fd() };
        let terminal = match &self.terminal {
            Some(terminal) if !self.pending.is_empty() => terminal.as_fd(),
            _ => self.resized.as_fd(),
        };
        [
            PollFd::from_borrowed_fd(self.resized.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(input_fd, input),
            PollFd::from_borrowed_fd(terminal, output),
        ]
    }

    /// Moves what is ready.
    pub(crate) fn turn(&mut self, ready: &[bool]) -> Result<(), IoError> {
        let &[resized, input, output] = ready else { return Ok(()) };
        if resized {
            while rustix::io::read(&self.resized, &mut [0; 64]).is_ok_and(|length| length > 0) {}
            self.resize()?;
        }
        if input && self.reads() {
            let mut buffer = [0; 4096];
            match rustix::io::read(STDIN, &mut buffer) {
                Ok(0) | Err(Errno::IO) => {
                    self.has_input = false;
                    self.pending.push(END_OF_TRANSMISSION);
                }
                Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(IoError::new("read", "standard input", &error.into())),
            }
        }
        if output && let Some(terminal) = &self.terminal {
            match rustix::io::write(terminal, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                // The step has closed it; nobody will read this.
                Err(_) => {
                    self.pending.clear();
                    self.terminal = None;
                }
            }
        }
        Ok(())
    }

    /// Input is read once it has somewhere to go, and not faster than it goes.
    fn reads(&self) -> bool {
        self.has_input && self.terminal.is_some() && self.pending.is_empty()
    }

    fn resize(&self) -> Result<(), IoError> {
        let (Some(terminal), Ok(size)) = (&self.terminal, tcgetwinsize(io::stdout())) else { return Ok(()) };
        tcsetwinsize(terminal, size).at("resize", "the step's terminal")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.hook);
        if let Some(saved) = &self.saved {
            // The terminal may be gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, saved);
        }
    }
}
