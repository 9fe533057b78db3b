//! A socket of a step's own to an ssh agent, the caller's or keys that kiln holds: it can list keys and sign, and do
//! nothing else to the agent.
//!
//! The messages are those of <https://datatracker.ietf.org/doc/draft-ietf-sshm-ssh-agent/>: a length, a type, a body; each request has
//! one answer. A proxy and not the agent's own socket, so that mode and owner can be a step's, and so that a step
//! can neither add keys nor remove or lock those of the caller.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_core::{IoError, IoResultExt as _};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::Shutdown;
use rustix::process::{Gid, Uid};

use crate::Error;
use crate::ssh::{Keyring, REQUEST_IDENTITIES, SIGN_REQUEST, SshAgent, strings};

/// The answer to all other requests: failure, in a message of one byte.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// The longest message that OpenSSH's agent takes, bytes.
const LONGEST: usize = 256 * 1024;
/// A step needs few at a time; each costs a thread here.
const MOST_CONNECTIONS: usize = 64;

/// The name of the socket in its directory.
const NAME: &str = "agent";

/// The sockets of each connection, for whoever ends it.
type Connections = Mutex<HashMap<usize, Vec<UnixStream>>>;

/// Who answers.
#[derive(Clone)]
pub(crate) enum Backend {
    /// The agent that listens there.
    Agent(PathBuf),
    /// These keys.
    Keys(Arc<Keyring>),
}

impl Backend {
    /// Takes what was given with `--ssh`.
    pub(crate) fn new(id: &str, agent: &SshAgent) -> Result<Self, Error> {
        Ok(match agent {
            SshAgent::Socket(path) => Self::Agent(path.clone()),
            SshAgent::Keys(files) => {
                let keys = Keyring::new(files).map_err(|error| Error::SshKey { id: id.to_owned(), error })?;
                Self::Keys(Arc::new(keys))
            }
        })
    }
}

/// A listening socket. When it is dropped, its connections end.
pub(crate) struct AgentProxy {
    path: PathBuf,
    listener: Arc<UnixListener>,
    open: Arc<Connections>,
    accepting: Option<JoinHandle<()>>,
}

impl AgentProxy {
    /// Listens in `dir`, which nobody else may enter, for an agent.
    pub(crate) fn start(dir: &Path, agent: &Backend, mode: u32, owner: (u32, u32)) -> Result<Self, IoError> {
        // An agent that is gone is better told of now than by ssh in the step.
        if let Backend::Agent(path) = agent {
            connect(path).at("connect to the ssh agent at", path)?;
        }
        let path = dir.join(NAME);
        let listener =
            with_short_name(dir, NAME, |short| UnixListener::bind(short)).at("listen at", &path)?;
        rustix::fs::chown(&path, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
            .and_then(|()| rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o777)))
            .at("set the owner of", &path)?;
        let listener = Arc::new(listener);
        let open = Arc::new(Connections::default());
        let accepting = {
            let (listener, open, agent) = (Arc::clone(&listener), Arc::clone(&open), agent.clone());
            std::thread::Builder::new()
                .name("ssh agent".to_owned())
                .spawn(move || accept(&listener, &open, &agent))
                .at("start a thread for", &path)?
        };
        Ok(Self { path, listener, open, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentProxy {
    fn drop(&mut self) {
        // Ends the accepting thread, which then ends the others.
        let _ = rustix::net::shutdown(&*self.listener, Shutdown::Both);
        end_all(&self.open);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn end_all(open: &Connections) {
    for stream in open.lock().unwrap_or_else(PoisonError::into_inner).values().flatten() {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

fn accept(listener: &UnixListener, open: &Connections, agent: &Backend) {
    std::thread::scope(|scope| {
        for number in 0.. {
            let client = match listener.accept() {
                Ok((client, _)) => client,
                // It was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // The step has ended.
                Err(_) => break,
            };
            let server = match agent {
                Backend::Agent(path) => connect(path).map(Some),
                Backend::Keys(_) => Ok(None),
            };
            let Ok(server) = server else { continue };
            let copies = [Some(&client), server.as_ref()].into_iter().flatten().map(UnixStream::try_clone);
            let Ok(copies) = copies.collect::<io::Result<Vec<UnixStream>>>() else { continue };
            let mut known = open.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MOST_CONNECTIONS {
                continue;
            }
            known.insert(number, copies);
            drop(known);
            scope.spawn(move || {
                // How a connection ended is told to its two sides by its end.
                let _ = match (&server, agent) {
                    (Some(server), _) => forward(&client, server),
                    (None, Backend::Keys(keys)) => answer(&client, keys),
                    (None, Backend::Agent(_)) => Ok(()),
                };
                open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            });
        }
        // Whoever came between the end of the step and now.
        end_all(open);
    });
}

fn forward(mut client: &UnixStream, mut server: &UnixStream) -> io::Result<()> {
    while let Some(request) = read_message(client)? {
        match request.get(4) {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                server.write_all(&request)?;
                let answer = read_message(server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                client.write_all(&answer)?;
            }
            _ => client.write_all(&FAILURE)?,
        }
    }
    Ok(())
}

fn answer(mut client: &UnixStream, keys: &Keyring) -> io::Result<()> {
    while let Some(request) = read_message(client)? {
        match keys.answer(&request[4..]) {
            Some(answer) => client.write_all(&strings(&[&answer]))?,
            None => client.write_all(&FAILURE)?,
        }
    }
    Ok(())
}

/// Reads one message, length included; none at the end.
fn read_message(mut from: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_vec();
    message.resize(4 + bytes, 0);
    from.read_exact(&mut message[4..])?;
    Ok(Some(message))
}

fn connect(agent: &Path) -> io::Result<UnixStream> {
    let dir = agent.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = agent.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    with_short_name(dir, name, |short| UnixStream::connect(short))
}

/// A socket's address holds 107 bytes (unix(7)); a directory's descriptor has a short name for any directory.
fn with_short_name<T>(
    dir: &Path,
    name: impl AsRef<Path>,
    work: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let dir =
        rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    work(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests;
