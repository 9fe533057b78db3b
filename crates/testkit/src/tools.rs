//! Other people's programs, as oracles.

use std::process::{Command, Output};

/// Finds a program on `PATH`. Without it a test prints why it skips and gets none; in CI, where `CI` is `true`, that is a
/// failure: the machine there has all of them.
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn tool(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} is not installed, and CI=true");
        eprintln!("skipped: {name} is not installed");
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
