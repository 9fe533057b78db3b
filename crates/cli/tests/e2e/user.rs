//! Who runs kiln.

use std::ffi::OsStr;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use kiln_testkit::tools::as_user;
pub(crate) use kiln_testkit::tools::skip;

/// One of the three kinds of user that kiln treats differently, or whoever runs the tests, where that is not root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    /// `kiln-sub`: newuidmap gives it 65536 ids.
    Sub,
    /// `kiln-plain`: it has its own id only.
    Plain,
    Caller,
}

/// Runs a case as each user that can be tried here, all of them even if one fails; the failures name the user.
pub(crate) fn for_each_user(case: impl Fn(User)) {
    let mut failure = None;
    for user in users() {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(*user))) {
            told(&format!("^^^ this failed as {}", user.name()));
            failure = Some(panic);
        }
    }
    if let Some(panic) = failure {
        resume_unwind(panic);
    }
}

/// The users that can be tried here. What is left out is said, and fails the run under CI.
pub(crate) fn users() -> &'static [User] {
    static USERS: OnceLock<Vec<User>> = OnceLock::new();
    USERS.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            skip("root, kiln-sub and kiln-plain: the tests do not run as root");
            return vec![User::Caller];
        }
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/setup");
        let made = Command::new(setup).arg("users").output();
        let mut users = vec![User::Root];
        for user in [User::Sub, User::Plain] {
            let known = ids(user.name()).is_some();
            let range = |file| fs::read_to_string(file).unwrap_or_default().contains("kiln-sub:");
            let mapped =
                range("/etc/subuid") && range("/etc/subgid") && Path::new("/usr/bin/newuidmap").exists();
            if known && (user == User::Plain || mapped) {
                users.push(user);
            } else {
                skip(&format!("{}: testdata/setup could not make it: {made:?}", user.name()));
            }
        }
        users
    })
}

#[expect(clippy::print_stderr, reason = "for whoever runs the tests")]
fn told(what: &str) {
    eprintln!("{what}");
}

impl User {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Sub => "kiln-sub",
            Self::Plain => "kiln-plain",
            Self::Caller => "the caller",
        }
    }

    /// Returns user and group id, as the tests see them.
    pub(crate) fn ids(self) -> (u32, u32) {
        match self {
            Self::Root => (0, 0),
            Self::Caller => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            Self::Sub | Self::Plain => ids(self.name()).expect("a listed user exists"),
        }
    }

    /// Returns whether there are ids other than root's: the kernel's, or (with a single id) those that kiln answers for.
    pub(crate) fn has_range(self) -> bool {
        matches!(self, Self::Root | Self::Sub | Self::Plain)
    }

    /// Makes a command that this user runs; the child is the program itself.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        if matches!(self, Self::Root | Self::Caller) {
            return Command::new(program);
        }
        as_user(self.ids(), program)
    }
}

fn ids(name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
