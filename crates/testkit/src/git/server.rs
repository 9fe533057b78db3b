//! `git http-backend` behind a little HTTP, on 127.0.0.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::git_command;

/// Serves every repository below a directory at `http://127.0.0.1:PORT/NAME.git`.
#[derive(Debug)]
pub struct GitServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What goes wrong, or is other than usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It does not know version 2 of the protocol.
    Old,
    /// Only who sends this `Authorization` is answered.
    Secret(String),
    /// Requests for the greeting are sent elsewhere: to this base with the path behind it.
    Redirect(String),
    /// Answers to POST end after so many bytes.
    Cut(usize),
    /// In answers to POST the byte at this distance from the end is another one.
    Corrupt(usize),
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET /a.git/info/refs?service=git-upload-pack`
    pub line: String,
    /// The header.
    pub authorization: Option<String>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    troubles: Mutex<Vec<Trouble>>,
    seen: Mutex<Vec<Seen>>,
    stopped: AtomicBool,
}

impl GitServer {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// There is none.
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (troubles, seen) = (Mutex::default(), Mutex::default());
        let shared =
            Arc::new(Shared { root: root.to_owned(), troubles, seen, stopped: AtomicBool::new(false) });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = serving.clone();
                thread::spawn(move || {
                    // A client that goes away is its own business.
                    let _ = answer(&shared, stream);
                });
            }
        });
        Self { address, shared }
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.address)
    }

    /// Makes this go wrong from now on.
    pub fn trouble(&self, trouble: Trouble) {
        lock(&self.shared.troubles).push(trouble);
    }

    /// Returns what was asked since the last time.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.shared.seen))
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees it.
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let header =
        |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let authorization = header("authorization");
    lock(&shared.seen)
        .push(Seen { line: format!("{method} {target}"), authorization: authorization.clone() });
    let troubles = lock(&shared.troubles).clone();
    for trouble in &troubles {
        match trouble {
            Trouble::Secret(secret) if authorization.as_ref() != Some(secret) => {
                let head =
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
                return writer.write_all(head.as_bytes());
            }
            Trouble::Redirect(base) if method == "GET" => {
                let head =
                    format!("HTTP/1.1 302 Found\r\nLocation: {base}{target}\r\nContent-Length: 0\r\n\r\n");
                return writer.write_all(head.as_bytes());
            }
            _ => {}
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = git_command(&shared.root);
    command.arg("http-backend").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("GIT_PROJECT_ROOT", &shared.root).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
    command.env("CONTENT_TYPE", header("content-type").unwrap_or_default());
    command.env("CONTENT_LENGTH", length.to_string()).env("REMOTE_ADDR", "127.0.0.1");
    if let Some(protocol) = header("git-protocol").filter(|_| !troubles.contains(&Trouble::Old)) {
        command.env("GIT_PROTOCOL", protocol);
    }
    let mut child = command.spawn()?;
    child.stdin.take().expect("a pipe").write_all(&body)?;
    let mut output = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut output)?;
    child.wait()?;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(output.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut content = output.split_off(end);
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let announced = content.len();
    for trouble in troubles.iter().filter(|_| method == "POST") {
        match trouble {
            Trouble::Cut(length) => content.truncate(*length),
            Trouble::Corrupt(distance) if content.len() > *distance => {
                let at = content.len() - distance;
                content[at] ^= 0xff;
            }
            _ => {}
        }
    }
    write!(writer, "HTTP/1.1 {status}\r\nContent-Length: {announced}\r\nConnection: close\r\n")?;
    writer.write_all(head.as_bytes())?;
    writer.write_all(&content)
}

/// Plain data is whole whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
