//! Credential helpers: programs named `docker-credential-NAME` that keep credentials elsewhere.
//! <https://github.com/docker/docker-credential-helpers#development>

use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use serde::{Deserialize, Serialize};

use super::Credential;
use crate::{Launcher, RegistryError, response};

/// More than any credentials have, bytes.
const LIMIT: usize = 1 << 20;
/// How often it is looked whether anybody still waits for the answer.
const TICK: Duration = Duration::from_millis(50);
/// What a helper calls a user whose secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What a helper is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Store,
    Erase,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Store => "store",
            Self::Erase => "erase",
        }
    }
}

/// A helper of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Helper {
    /// What follows `docker-credential-`.
    pub(crate) name: String,
    /// Where it is looked for, in order.
    pub(crate) programs: Vec<PathBuf>,
    /// What starts it as the user.
    pub(crate) launcher: Option<Launcher>,
    /// How long it may take. It may have to ask its user.
    pub(crate) limit: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    #[serde(default, rename = "ServerURL")]
    server: String,
    username: String,
    secret: String,
}

/// What came of it.
struct Answer {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Helper {
    pub(crate) fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    /// Asks for the credentials of a server. None: it has none.
    pub(crate) fn get(
        &self,
        server: &str,
        unwanted: &Arc<AtomicBool>,
    ) -> Result<Option<Credential>, RegistryError> {
        let fail = |reason: String| self.failure(server, reason);
        let answer = self.run(Verb::Get, server.as_bytes(), unwanted).map_err(fail)?;
        if !answer.status.success() {
            // Helpers say so on standard output, docker's own with these words.
            let said = words(&answer);
            let none = ["credentials not found", "no credentials server URL", "no credentials username"];
            if none.iter().any(|none| said.contains(none)) {
                return Ok(None);
            }
            return Err(fail(ended(&answer, &said)));
        }
        // Not serde's words: they may quote the secret.
        let message: Message = serde_json::from_slice(&answer.stdout)
            .map_err(|_| fail("it answers with something else than credentials".to_owned()))?;
        Ok(match (message.username.as_str(), message.secret) {
            (_, secret) if secret.is_empty() => None,
            (TOKEN_USER, token) => Some(Credential::of_identity(token)),
            ("", _) => None,
            (user, password) => Some(Credential::of_login(user, password)),
        })
    }

    /// Gives it credentials to keep.
    pub(crate) fn store(&self, server: &str, credential: &Credential) -> Result<(), RegistryError> {
        let (username, secret) = match (&credential.identity, &credential.login) {
            (Some(token), _) => (TOKEN_USER.to_owned(), token.clone()),
            (None, Some((user, password))) => (user.clone(), password.clone()),
            (None, None) => return Ok(()),
        };
        let message = Message { server: server.to_owned(), username, secret };
        let text = serde_json::to_vec(&message)
            .map_err(|_| self.failure(server, "they cannot be written as JSON".to_owned()))?;
        self.tell(Verb::Store, server, &text)
    }

    /// Has it forget a server; one that it does not know is forgotten.
    pub(crate) fn erase(&self, server: &str) -> Result<(), RegistryError> {
        self.tell(Verb::Erase, server, server.as_bytes())
    }

    fn tell(&self, verb: Verb, server: &str, input: &[u8]) -> Result<(), RegistryError> {
        let fail = |reason: String| self.failure(server, reason);
        let answer = self.run(verb, input, &Arc::default()).map_err(fail)?;
        let said = words(&answer);
        if answer.status.success() || verb == Verb::Erase && said.contains("not found") {
            return Ok(());
        }
        Err(fail(ended(&answer, &said)))
    }

    fn failure(&self, server: &str, reason: String) -> RegistryError {
        RegistryError::Helper { program: self.program(), server: server.to_owned(), reason }
    }

    /// Runs it to its end, or to that of its time. Secrets go through pipes alone: arguments and environment are for
    /// everybody to see.
    fn run(&self, verb: Verb, input: &[u8], unwanted: &Arc<AtomicBool>) -> Result<Answer, String> {
        // A name that is a path would be another program than docker runs.
        if self.name.contains('/') {
            return Err("its name is not what follows `docker-credential-`".to_owned());
        }
        let program = self.program();
        let path =
            self.programs.iter().map(|directory| directory.join(&program)).find(|path| is_program(path));
        let path = path.ok_or("it is not in PATH")?;
        let mut command = launched(self.launcher.as_ref(), &path);
        command.arg(verb.name()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| response::plain(&error.to_string()))?;
        attend(child, input, self.limit, unwanted)
    }
}

fn launched(launcher: Option<&Launcher>, path: &Path) -> Command {
    let Some(Launcher { program, args }) = launcher else { return Command::new(path) };
    let mut command = Command::new(program);
    if let Some((name, args)) = args.split_first() {
        command.arg0(name).args(args);
    }
    command.arg(path);
    command
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Speaks with a child until it ends; kills it when it takes too long, or nobody wants the answer any more.
fn attend(
    mut child: Child,
    input: &[u8],
    limit: Duration,
    unwanted: &Arc<AtomicBool>,
) -> Result<Answer, String> {
    let until = Instant::now() + limit;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    if let Some(mut stdin) = stdin {
        let input = input.to_vec();
        // One who ends without reading has said why.
        thread::spawn(move || stdin.write_all(&input));
    }
    let plain = |error: io::Error| response::plain(&error.to_string());
    let (mut stdout, mut stderr) = (Pipe::new(stdout).map_err(plain)?, Pipe::new(stderr).map_err(plain)?);
    let status = loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || unwanted.load(Ordering::Relaxed) {
            // It may just have ended.
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it took longer than {} s", limit.as_secs()));
        }
        let mut open: Vec<PollFd<'_>> = stdout.wanted().into_iter().chain(stderr.wanted()).collect();
        if open.is_empty() {
            // It closed its output: it is about to end.
            thread::sleep(Duration::from_millis(1));
        } else {
            // Interrupted is as good as nothing.
            let _ = poll(&mut open, Timespec::try_from(left.min(TICK)).ok().as_ref());
        }
        stdout.take();
        stderr.take();
        if let Some(status) = child.try_wait().map_err(plain)? {
            break status;
        }
    };
    // Its children may keep the pipes open beyond its end, so what it said itself is what is there now.
    stdout.take();
    stderr.take();
    Ok(Answer { status, stdout: stdout.bytes, stderr: stderr.bytes })
}

/// What comes from a child, taken when it is there.
struct Pipe<R> {
    /// None at its end.
    from: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(from: Option<R>) -> io::Result<Self> {
        if let Some(from) = &from {
            ioctl_fionbio(from, true)?;
        }
        Ok(Self { from, bytes: Vec::new() })
    }

    /// To wait for more.
    fn wanted(&self) -> Option<PollFd<'_>> {
        self.from.as_ref().map(|from| PollFd::new(from, PollFlags::IN))
    }

    /// Takes all that is there, and not more than anybody has to say.
    fn take(&mut self) {
        let mut piece = [0; 8192];
        while let Some(from) = &mut self.from {
            match from.read(&mut piece) {
                Ok(count @ 1..) if self.bytes.len() < LIMIT => self.bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.from = None,
            }
        }
    }
}

fn words(answer: &Answer) -> String {
    let text = |bytes: &[u8]| response::plain(&String::from_utf8_lossy(bytes));
    match text(&answer.stdout) {
        said if said.is_empty() => text(&answer.stderr),
        said => said,
    }
}

fn ended(answer: &Answer, said: &str) -> String {
    let status = match answer.status.code() {
        Some(code) => format!("it ends with exit code {code}"),
        None => "it was killed".to_owned(),
    };
    if said.is_empty() { status } else { format!("{status}: {said}") }
}

#[cfg(test)]
mod tests;
