//! Programs for tests.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes `docker-credential-NAME` of a script. Another process writes it: a child that a test of another thread starts just then
/// would hold it open for writing, and such a file cannot be executed.
pub(super) fn helper(directory: &Path, name: &str, script: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(directory.join(format!("docker-credential-{name}")));
    let mut child = install.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
