//! Questions to who sits at the terminal.

use std::io::Write as _;
use std::thread::JoinHandle;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// Asks for a line. None: there is none.
pub(crate) fn ask(question: &str) -> Option<String> {
    show(question);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).ok()?;
    Some(line.trim().to_owned())
}

/// Asks for a line that is not shown. None: it was not answered, or the terminal is none.
pub(crate) fn ask_secretly(question: &str) -> Option<Vec<u8>> {
    let _quiet = Quiet::start()?;
    show(question);
    let answer = typed(&mut std::io::stdin().lock());
    show("\n");
    answer
}

fn show(text: &str) {
    let mut stderr = std::io::stderr();
    // Nobody is left to answer if it is closed.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Reads the keys of a line. An interrupt is a key here, so that the terminal is put back before anything ends.
fn typed(keys: &mut impl std::io::Read) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    // One at a time: what is typed after the line is for somebody else.
    let mut key = [0];
    while keys.read(&mut key).ok()? == 1 {
        match key[0] {
            b'\n' | b'\r' => return Some(line),
            // Interrupt; end of input.
            0x03 => return None,
            0x04 if line.is_empty() => return None,
            // Backspace, in both of its forms; a character may be several bytes.
            0x08 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // The whole line.
            0x15 => line.clear(),
            byte => line.push(byte),
        }
    }
    None
}

/// A terminal that does not show what is typed, until this is dropped or the process is asked to end.
struct Quiet {
    before: Termios,
    /// Ends the thread that waits for that.
    waiting: Option<(Handle, JoinHandle<()>)>,
}

impl Quiet {
    fn start() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Interrupts are keys here; these come from outside.
        let mut signals = Signals::new([SIGTERM, SIGHUP, SIGQUIT]).ok()?;
        let handle = signals.handle();
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).ok()?;
        let restored = before.clone();
        let thread = std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &restored);
                show("\n");
                std::process::exit(128 + signal);
            }
        });
        Some(Self { before, waiting: Some((handle, thread)) })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.before);
        if let Some((handle, thread)) = self.waiting.take() {
            handle.close();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::typed;

    #[test]
    fn a_line_is_typed_key_by_key() {
        let cases: [(&[u8], Option<&[u8]>); 8] = [
            (b"secret\nrest", Some(b"secret")),
            (b"secret\r", Some(b"secret")),
            (b"sex\x7fcret\x08t\n", Some(b"secret")),
            ("s\u{e9}\x7fecret\n".as_bytes(), Some(b"secret")),
            (b"wrong\x15secret\n", Some(b"secret")),
            (b"half\x03\n", None),
            (b"\x04", None),
            (b"half", None),
        ];
        for (mut keys, expected) in cases {
            assert_eq!(typed(&mut keys).as_deref(), expected, "{keys:?}");
        }
    }
}
