//! Repositories made by git itself, and served by it: the referee for a client that does without.

mod server;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use server::{GitServer, Seen, Trouble};

use crate::tools::run;

/// Runs git in a directory, deaf to the machine's configuration, on one fixed date.
///
/// # Panics
/// It fails.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    run(git_command(directory).args(arguments)).trim_end().to_owned()
}

/// The same, not started yet.
pub fn git_command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Kim").env(format!("GIT_{who}_EMAIL"), "kim@example.com");
        command.env(format!("GIT_{who}_DATE"), format!("{DATE} +0100"));
    }
    // Tests run as root on directories of others.
    command.args([
        "-c",
        "safe.directory=*",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "protocol.file.allow=always",
    ]);
    command
}

/// The date of every commit, seconds since 1970.
pub const DATE: i64 = 1_700_000_000;

/// A repository with its files, `NAME.git` in a directory of repositories; its `.git` is in it, as git serves it.
#[derive(Debug, Clone)]
pub struct TestRepository {
    /// Where it is.
    pub path: PathBuf,
}

impl TestRepository {
    /// Makes an empty one.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn create(root: &Path, name: &str) -> Self {
        let path = root.join(format!("{name}.git"));
        fs::create_dir_all(&path).expect("a directory");
        git(&path, &["init", "-q"]);
        Self { path }
    }

    /// Runs git in it.
    ///
    /// # Panics
    /// It fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.path, arguments)
    }

    /// Writes a file, and stages it.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let full = self.path.join(path);
        fs::create_dir_all(full.parent().expect("it is in a directory")).expect("a directory");
        fs::write(&full, content).expect("a file");
        self.git(&["add", "--", path]);
        self
    }

    /// Writes an executable file, and stages it.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn executable(&self, path: &str, content: &str) -> &Self {
        self.file(path, content);
        fs::set_permissions(self.path.join(path), Permissions::from_mode(0o755)).expect("a mode");
        self.git(&["add", "--", path]);
        self
    }

    /// Makes a link, and stages it.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn link(&self, path: &str, to: &str) -> &Self {
        std::os::unix::fs::symlink(to, self.path.join(path)).expect("a link");
        self.git(&["add", "--", path]);
        self
    }

    /// Commits what is staged, and returns the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Commits a tree written by hand: `mode kind id\tname` each. Returns the commit's id, which HEAD does not have.
    ///
    /// # Panics
    /// git does not take it.
    pub fn commit_tree(&self, tree: &str) -> String {
        self.git(&["commit-tree", tree, "-m", "by hand"])
    }

    /// Stores an object with any content, sound or not, and returns its id.
    ///
    /// # Panics
    /// git does not take it.
    pub fn object(&self, kind: &str, content: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), content).expect("a file");
        let path = file.path().to_str().expect("UTF-8");
        self.git(&["hash-object", "-t", kind, "--literally", "-w", path])
    }

    /// Stores a tree of such entries: mode, name, id in hexadecimal digits.
    pub fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut content = Vec::new();
        for (mode, name, id) in entries {
            content.extend_from_slice(mode.as_bytes());
            content.push(b' ');
            content.extend_from_slice(name);
            content.push(0);
            let digits = id.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
            content.extend(digits.map(|pair| u8::from_str_radix(pair, 16).expect("digits")));
        }
        self.object("tree", &content)
    }
}
