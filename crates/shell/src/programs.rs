//! Starts programs of the image.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::session::{Session, say};

/// Runs a program to its end; returns what a shell reports.
pub(crate) fn run(session: &Session, command: &[OsString]) -> io::Result<i32> {
    let Some(mut program) = find(session, command) else { return Ok(127) };
    match program.status() {
        Ok(status) => Ok(status.code().unwrap_or(128 + status.signal().unwrap_or(0))),
        Err(error) => Ok(explain(&program, &error)),
    }
}

/// Becomes a program; returns only if that failed.
pub(crate) fn exec(session: &Session, command: &[OsString]) -> i32 {
    let Some(mut program) = find(session, command) else { return 127 };
    let error = program.exec();
    explain(&program, &error)
}

fn find(session: &Session, command: &[OsString]) -> Option<Command> {
    let (name, args) = command.split_first()?;
    let path = if name.as_bytes().contains(&b'/') {
        PathBuf::from(name)
    } else {
        let path = session.env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
        let Some(found) = found else {
            say(&format!(
                "{}: not found in PATH; `help` says what this shell itself can do",
                name.to_string_lossy()
            ));
            return None;
        };
        found
    };
    let mut program = Command::new(path);
    program.arg0(name).args(args).env_clear().envs(&session.env);
    Some(program)
}

/// Says why a program cannot be started, and returns what shells report then.
fn explain(program: &Command, error: &io::Error) -> i32 {
    let path = Path::new(program.get_program());
    let (why, status) = match error.kind() {
        io::ErrorKind::NotFound if path.exists() => (
            match interpreter(path) {
                Some(name) => format!("its interpreter {name} is not there"),
                None => "its dynamic linker is not there".to_owned(),
            },
            126,
        ),
        io::ErrorKind::NotFound => ("no such file".to_owned(), 127),
        io::ErrorKind::PermissionDenied => ("it may not be executed".to_owned(), 126),
        _ if error.raw_os_error() == Some(EXEC_FORMAT) => {
            ("not a program of this machine's, nor a script with a #! line".to_owned(), 126)
        }
        _ => (error.to_string(), 126),
    };
    say(&format!("{}: {why}", path.display()));
    status
}

/// ENOEXEC, errno(3).
const EXEC_FORMAT: i32 = 8;

/// What a script's first line names.
fn interpreter(path: &Path) -> Option<String> {
    let mut start = vec![0; 256];
    let length = io::Read::read(&mut std::fs::File::open(path).ok()?, &mut start).ok()?;
    let line = start[..length].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).split_whitespace().next()?.to_owned())
}
