//! The loop: reads a line, does what it says.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::words::{self, Trouble, When, Word};
use crate::{commands, programs};

/// What one shell knows.
pub(crate) struct Session {
    /// What programs are started with. Not the process's own: that cannot be changed safely.
    pub(crate) env: BTreeMap<OsString, OsString>,
    /// How the last command ended.
    pub(crate) status: i32,
    /// Set by `exit`.
    pub(crate) ended: bool,
}

/// Serves; returns the exit code.
pub(crate) fn serve(command: Vec<OsString>) -> i32 {
    // Caught and not ignored: programs that are started get the default back, and an interrupt ends them, not us.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::new(AtomicBool::new(false)));
    let mut session = Session { env: std::env::vars_os().collect(), status: 0, ended: false };
    if !command.is_empty() {
        session.run(&command);
        return session.status;
    }
    let interactive = io::stdin().is_terminal();
    if interactive {
        say("kiln's own shell; `help` says what it can do");
    }
    // Byte by byte, as every shell reads a script: what follows is the next program's.
    let Ok(mut input) = io::stdin().as_fd().try_clone_to_owned().map(File::from) else { return 1 };
    let mut text = Vec::new();
    while !session.ended {
        if interactive {
            let place = std::env::current_dir().unwrap_or_default();
            let prompt =
                if text.is_empty() { format!("kiln:{}# ", place.display()) } else { "> ".to_owned() };
            let _ = io::stdout().write_all(prompt.as_bytes()).and_then(|()| io::stdout().flush());
        }
        let more = read_line(&mut input, &mut text);
        match words::split(&text) {
            Err(Trouble::Incomplete) if more => continue,
            Err(Trouble::Incomplete) => session.refuse("the input ends in the middle of a command"),
            Err(Trouble::Refused(why)) => session.refuse(why),
            Ok(commands) => session.run_all(commands),
        }
        text.clear();
        if !more {
            break;
        }
    }
    session.status
}

impl Session {
    fn run_all(&mut self, commands: Vec<(When, Vec<Word>)>) {
        for (when, words) in commands {
            let wanted = match when {
                When::Always => true,
                When::And => self.status == 0,
                When::Or => self.status != 0,
            };
            if wanted && !self.ended {
                let command: Vec<OsString> =
                    words.iter().filter_map(|word| word.expand(&|name| self.variable(name))).collect();
                self.run(&command);
            }
        }
    }

    fn variable(&self, name: &[u8]) -> Option<OsString> {
        match name {
            b"?" => Some(self.status.to_string().into()),
            name => self.env.get(OsStr::from_bytes(name)).cloned(),
        }
    }

    /// Does one command: one of ours, else a program.
    pub(crate) fn run(&mut self, command: &[OsString]) {
        let Some((name, args)) = command.split_first() else { return };
        let done = match commands::find(name) {
            Some(command) => command(self, args),
            None => programs::run(self, command),
        };
        self.status = done.unwrap_or_else(|error| {
            say(&format!("{}: {error}", name.to_string_lossy()));
            1
        });
    }

    fn refuse(&mut self, why: &str) {
        say(&format!("kiln's own shell knows {why}: `help` says what it can do"));
        self.status = 2;
    }
}

/// Writes a line to standard error.
pub(crate) fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Reads up to a line's end; returns whether there may be more.
fn read_line(input: &mut File, text: &mut Vec<u8>) -> bool {
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(0) => return false,
            Ok(_) => {
                text.push(byte[0]);
                if byte[0] == b'\n' {
                    return true;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}
