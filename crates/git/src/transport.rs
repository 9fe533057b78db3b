//! Two ways to one conversation: a connection that stays, and HTTP requests that each stand alone.
//!
//! Both carry the same bytes, for a shallow fetch without common history needs no negotiation: all that is wanted is said
//! at once.

mod http;
mod stream;

use std::io::{self, Read};

use kiln_core::Cancel;

use crate::greeting::Greeting;
use crate::location::{Location, Reach};
use crate::{Access, GitError};

/// A server that has said hello.
pub(crate) struct Service<'a> {
    pub(crate) location: &'a Location,
    pub(crate) greeting: Greeting,
    wire: Wire<'a>,
}

enum Wire<'a> {
    Http(http::Endpoint<'a>),
    Stream(stream::Connection),
}

impl<'a> Service<'a> {
    /// Connects, and reads what the server can do.
    pub(crate) fn connect(access: &'a Access<'_>, location: &'a Location) -> Result<Self, GitError> {
        if access.cancel.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        let (wire, greeting) = match &location.reach {
            Reach::Http(base) => {
                let (endpoint, mut body) = http::Endpoint::connect(access, location, base)?;
                let greeting = Greeting::read(&mut body, location, &access.cancel)?;
                (Wire::Http(endpoint), greeting)
            }
            Reach::Git { authority, path } => {
                let mut connection = stream::tcp(access, location, authority, path)?;
                let greeting = Greeting::read(connection.reader(), location, &access.cancel)?;
                (Wire::Stream(connection), greeting)
            }
            Reach::Ssh { host, port, path } => {
                let mut connection = stream::ssh(access, location, host, *port, path)?;
                let greeting = Greeting::read(connection.reader(), location, &access.cancel);
                let greeting = greeting.map_err(|error| connection.explained(error))?;
                (Wire::Stream(connection), greeting)
            }
            Reach::File(_) => {
                let reason = "it is a directory".to_owned();
                return Err(GitError::Unsupported { remote: location.name.clone(), reason });
            }
        };
        Ok(Self { location, greeting, wire })
    }

    /// Sends a request and returns the answer, which the caller reads to its end.
    pub(crate) fn ask(&mut self, request: Vec<u8>) -> Result<Box<dyn Read + '_>, GitError> {
        match &mut self.wire {
            Wire::Http(endpoint) => endpoint.ask(request, self.greeting.version),
            Wire::Stream(connection) => connection.ask(&request, self.location),
        }
    }
}

/// What a failed read of the connection means.
pub(crate) fn broken(location: &Location, cancel: &Cancel, error: &io::Error) -> GitError {
    let remote = location.name.clone();
    if cancel.is_cancelled() {
        return GitError::Cancelled;
    }
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    match error.kind() {
        io::ErrorKind::InvalidData => GitError::Protocol { remote, reason: words.to_owned() },
        io::ErrorKind::UnexpectedEof => {
            GitError::Unreachable { remote, cause: "the connection broke off".to_owned() }
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            GitError::Unreachable { remote, cause: "it sent nothing for too long".to_owned() }
        }
        _ => GitError::Unreachable { remote, cause: crate::error::plain(words) },
    }
}
