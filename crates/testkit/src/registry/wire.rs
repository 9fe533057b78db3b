//! HTTP/1.1 by hand: requests in, answers out, faults on the way.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::PoisonError;

use super::answer::answer;
use super::cut::Line;
use super::{Fault, Seen, Shared};

pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Returns a value of the query, if it is there.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.path.split_once('?')?;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find_map(|(key, value)| (key == name).then(|| super::access::decoded(value)))
    }
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn header(mut self, line: impl Into<String>) -> Self {
        self.headers.push(line.into());
        self
    }
}

/// Serves one connection until it closes.
pub(super) fn connection(stream: TcpStream, address: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(Line { stream: stream.try_clone()?, shared });
    let mut writer = Line { stream, shared };
    while let Some(mut request) = read(&mut reader)? {
        let fault = note(&request, address, shared);
        let length =
            request.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let wanted = match fault {
            Some(Fault::Drop(length) | Fault::DropAll(length)) => length as u64,
            _ => length,
        };
        reader.by_ref().take(wanted.min(length)).read_to_end(&mut request.body)?;
        if let Some(Fault::Drop(_) | Fault::DropAll(_)) = fault {
            super::upload::cut(&mut shared.state(), &request, matches!(fault, Some(Fault::DropAll(_))));
            return Ok(());
        }
        if (request.body.len() as u64) < length {
            super::upload::cut(&mut shared.state(), &request, false);
            return Ok(());
        }
        let mut answer = match &fault {
            Some(Fault::Status { status, headers, body }) => {
                Answer { status: *status, headers: headers.clone(), body: body.clone().into() }
            }
            fault => answer(&request, address, shared, matches!(fault, Some(Fault::IgnoreRange))),
        };
        match fault {
            Some(Fault::NoDigest) => {
                answer.headers.retain(|line| !line.to_ascii_lowercase().starts_with("docker-content-digest"));
            }
            Some(Fault::Corrupt) => {
                if let Some(last) = answer.body.last_mut() {
                    *last ^= 1;
                }
            }
            Some(Fault::Shorten(length)) => answer.body.truncate(length),
            _ => {}
        }
        if let Some(Fault::NoAnswer) = fault {
            return Ok(());
        }
        if let Some(Fault::Mute) = fault {
            return io::copy(&mut reader, &mut io::sink()).map(drop);
        }
        let endless = matches!(fault, Some(Fault::Endless));
        let mut head = format!("HTTP/1.1 {} Whatever\r\n", answer.status);
        for line in &answer.headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        if endless {
            head.push_str("Transfer-Encoding: chunked\r\n\r\n");
        } else {
            head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
        }
        let bare = request.method == "HEAD" || answer.body.is_empty();
        if !bare {
            writer.write_all(head.as_bytes())?;
        }
        if let Some(Fault::Await(wanted)) = fault {
            let enough = shared.came.wait_while(shared.state(), |state| state.count < wanted);
            drop(enough.unwrap_or_else(PoisonError::into_inner));
        }
        if bare {
            writer.write_all(head.as_bytes())?;
        }
        if request.method == "HEAD" {
            continue;
        }
        match fault {
            Some(Fault::Cut(length)) => {
                writer.write_all(&answer.body[..length.min(answer.body.len())])?;
                return Ok(());
            }
            Some(Fault::Stall | Fault::Hang(_)) => {
                if let Some(Fault::Hang(length)) = fault {
                    writer.write_all(&answer.body[..length.min(answer.body.len())])?;
                }
                // Until the client has enough of it.
                return io::copy(&mut reader, &mut io::sink()).map(drop);
            }
            Some(Fault::Endless) => loop {
                writer.write_all(b"10000\r\n")?;
                writer.write_all(&[b' '; 0x10000])?;
                writer.write_all(b"\r\n")?;
            },
            _ => writer.write_all(&answer.body)?,
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<Line<'_>>) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.by_ref().take(64 << 10).read_line(&mut line)?;
        // Whoever breaks off in the middle has asked for nothing.
        if !line.ends_with('\n') {
            return Ok(None);
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut words = lines.first().map_or("", String::as_str).split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines.iter().skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    let (method, path, headers) = (method.to_owned(), path.to_owned(), headers.collect());
    Ok(Some(Request { method, path, headers, body: Vec::new() }))
}

/// Writes down what came and finds out whether it is to go wrong.
fn note(request: &Request, address: SocketAddr, shared: &Shared) -> Option<Fault> {
    let mut state = shared.state();
    let line = request.line();
    state.count += 1;
    shared.came.notify_all();
    if request.headers.get("host") != Some(&address.to_string()) {
        state.violations.push(format!("{line}: Host is {:?}", request.headers.get("host")));
    }
    if !request.headers.contains_key("user-agent") {
        state.violations.push(format!("{line}: no User-Agent"));
    }
    let conditions = request.headers.iter().filter(|(name, _)| name.starts_with("if-"));
    let conditions = conditions.map(|(name, value)| format!("{name}: {value}"));
    state.seen.push(Seen {
        line: line.clone(),
        range: request.headers.get("range").cloned(),
        authorized: request.headers.contains_key("authorization"),
        conditions: conditions.collect(),
        content_range: request.headers.get("content-range").cloned(),
    });
    let asked = match request.headers.get("range") {
        Some(range) => format!("{line} {range}"),
        None => line,
    };
    let (_, times, fault) =
        state.faults.iter_mut().find(|(on, times, _)| *times > 0 && asked.contains(on.as_str()))?;
    *times -= 1;
    Some(fault.clone())
}
