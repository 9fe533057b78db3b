//! Other people's programs, as oracles; and other users.

use std::ffi::OsStr;
use std::process::{Command, Output};

/// Says what is left out on this machine. In CI, where `CI` is `true`, that is a failure: the machine there can do all.
///
/// # Panics
/// In CI.
#[expect(clippy::print_stderr, reason = "for whoever runs the tests")]
pub fn skip(what: &str) {
    eprintln!("skipped: {what}");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "under CI nothing may be skipped: {what}");
}

/// Makes a command that another user runs, with one group; root may. setpriv(1) executes the program in its own process, so that
/// the child's id is the program's.
pub fn as_user((uid, gid): (u32, u32), program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()])
        .arg(program);
    command
}

/// Finds a program on `PATH`. Without it a test prints why it skips and gets none; in CI, where `CI` is `true`, that is a
/// failure: the machine there has all of them.
pub fn tool(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found.map(Command::new)
}

/// Runs to the end and returns standard output.
///
/// # Panics
/// It cannot be started, or fails; the message has what it wrote.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the program can be started");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    String::from_utf8_lossy(&stdout).into_owned()
}
