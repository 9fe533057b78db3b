//! Connections that stay: git's own protocol over TCP, and the same through ssh.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_core::CancelGuard;

use crate::error::plain;
use crate::location::Location;
use crate::transport::broken;
use crate::{Access, GitError};

const CONNECT: Duration = Duration::from_secs(10);
/// A server that packs sends a sign of life every few seconds.
const STALL: Duration = Duration::from_secs(60);

/// Bytes in both directions; dropping it ends it.
pub(super) struct Connection {
    reader: BufReader<Box<dyn Read + Send>>,
    writer: Box<dyn Write + Send>,
    ssh: Option<Process>,
    _guard: CancelGuard,
}

impl Connection {
    pub(super) fn reader(&mut self) -> &mut dyn Read {
        &mut self.reader
    }

    pub(super) fn ask(
        &mut self,
        request: &[u8],
        location: &Location,
    ) -> Result<Box<dyn Read + '_>, GitError> {
        let sent = self.writer.write_all(request).and_then(|()| self.writer.flush());
        sent.map_err(|error| broken(location, &kiln_core::Cancel::new(), &error))?;
        Ok(Box::new(&mut self.reader))
    }

    /// Puts ssh's own words in the place of "the connection broke off".
    pub(super) fn explained(&mut self, error: GitError) -> GitError {
        match (error, &mut self.ssh) {
            (GitError::Unreachable { remote, cause }, Some(process)) => {
                let words = process.words();
                GitError::Unreachable { remote, cause: if words.is_empty() { cause } else { words } }
            }
            (error, _) => error,
        }
    }
}

/// <https://git-scm.com/docs/pack-protocol#_git_transport>
pub(super) fn tcp(
    access: &Access<'_>,
    location: &Location,
    authority: &str,
    path: &str,
) -> Result<Connection, GitError> {
    let fail = |error: io::Error| broken(location, &access.cancel, &error);
    let has_port =
        authority.rsplit_once(':').is_some_and(|(_, port)| port.chars().all(|c| c.is_ascii_digit()));
    let address = if has_port { authority.to_owned() } else { format!("{authority}:9418") };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let mut stream = None;
    for address in address.to_socket_addrs().map_err(fail)? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(found) => {
                stream = Some(found);
                break;
            }
            Err(error) => last = error,
        }
    }
    let Some(stream) = stream else { return Err(fail(last)) };
    stream.set_read_timeout(Some(STALL)).map_err(fail)?;
    stream.set_write_timeout(Some(STALL)).map_err(fail)?;
    let hanger = stream.try_clone().map_err(fail)?;
    let guard = access.cancel.on_cancel(move || {
        // It may be closed already.
        let _ = hanger.shutdown(Shutdown::Both);
    });
    let mut writer = stream.try_clone().map_err(fail)?;
    let ask = format!("git-upload-pack {path}\0host={authority}\0\0version=2\0");
    writer.write_all(format!("{:04x}{ask}", ask.len() + 4).as_bytes()).map_err(fail)?;
    let reader: Box<dyn Read + Send> = Box::new(stream);
    let reader = BufReader::with_capacity(64 << 10, reader);
    Ok(Connection { reader, writer: Box::new(writer), ssh: None, _guard: guard })
}

/// Runs the host's ssh. It is told never to ask: nobody is there to answer.
pub(super) fn ssh(
    access: &Access<'_>,
    location: &Location,
    host: &str,
    port: Option<u16>,
    path: &str,
) -> Result<Connection, GitError> {
    let remote = || location.name.clone();
    if host.starts_with('-') {
        let reason = "a host that begins with `-` could be taken for an option".to_owned();
        return Err(GitError::Unsupported { remote: remote(), reason });
    }
    let mut command = Command::new("ssh");
    command.args(["-o", "BatchMode=yes", "-o", "SendEnv=GIT_PROTOCOL"]);
    if let Some(hosts) = &access.ssh.known_hosts {
        command.arg("-o").arg(format!("UserKnownHostsFile={}", hosts.display()));
    }
    if let Some(port) = port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(agent) = &access.ssh.agent {
        command.env("SSH_AUTH_SOCK", agent);
    }
    command.env("GIT_PROTOCOL", "version=2");
    command.arg("--").arg(host).arg(format!("git-upload-pack {}", quoted(path)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "it needs the program ssh, which is not installed".to_owned(),
            _ => format!("the program ssh cannot be started: {}", plain(&error.to_string())),
        };
        GitError::Unsupported { remote: remote(), reason }
    })?;
    let pipes = (child.stdin.take(), child.stdout.take());
    let process = Process(Arc::new(Mutex::new(child)));
    let (Some(writer), Some(reader)) = pipes else {
        let reason = "the program ssh was started without pipes".to_owned();
        return Err(GitError::Unsupported { remote: remote(), reason });
    };
    let killer = process.0.clone();
    let guard = access.cancel.on_cancel(move || {
        // It may have ended already.
        let _ = killer.lock().unwrap_or_else(PoisonError::into_inner).kill();
    });
    let reader: Box<dyn Read + Send> = Box::new(reader);
    let reader = BufReader::with_capacity(64 << 10, reader);
    Ok(Connection { reader, writer: Box::new(writer), ssh: Some(process), _guard: guard })
}

/// ssh gives one string to a shell over there.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// A child that ends with the connection.
struct Process(Arc<Mutex<Child>>);

impl Process {
    /// The last line that it wrote about what went wrong. Waits for its end, which is near: its output has ended.
    fn words(&mut self) -> String {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            // What could be read is worth telling.
            let _ = stderr.take(16 << 10).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        text.lines().map(plain).rfind(|line| !line.is_empty()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended already; waiting takes it out of the process table.
        let _ = child.kill();
        let _ = child.wait();
    }
}
