//! Plain files, with conditions and ranges. <https://www.rfc-editor.org/rfc/rfc9110#name-conditional-requests>

use super::State;
use super::wire::{Answer, Request};

/// A file that a server has.
#[derive(Debug, Clone, Default)]
pub struct WebFile {
    bytes: Vec<u8>,
    etag: Option<String>,
    last_modified: Option<String>,
    authorization: Option<String>,
    compares: bool,
    location: Option<String>,
}

impl WebFile {
    /// One about which the server says nothing.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), compares: true, ..Self::default() }
    }

    /// Sends nobody the file, but everybody there.
    pub fn elsewhere(location: impl Into<String>) -> Self {
        Self { location: Some(location.into()), ..Self::new("") }
    }

    /// With an `ETag`, quotes included.
    #[must_use]
    pub fn etag(self, etag: &str) -> Self {
        Self { etag: Some(etag.to_owned()), ..self }
    }

    /// With a `Last-Modified`.
    #[must_use]
    pub fn last_modified(self, date: &str) -> Self {
        Self { last_modified: Some(date.to_owned()), ..self }
    }

    /// For those alone who send this `Authorization`.
    #[must_use]
    pub fn for_whom(self, authorization: &str) -> Self {
        Self { authorization: Some(authorization.to_owned()), ..self }
    }

    /// From a server that sends tags and ignores conditions.
    #[must_use]
    pub fn never_compared(self) -> Self {
        Self { compares: false, ..self }
    }

    fn describe(&self, mut answer: Answer) -> Answer {
        if let Some(etag) = &self.etag {
            answer = answer.header(format!("ETag: {etag}"));
        }
        if let Some(date) = &self.last_modified {
            answer = answer.header(format!("Last-Modified: {date}"));
        }
        answer
    }
}

/// Answers if there is such a file.
pub(super) fn answer(state: &mut State, request: &Request, ignore_range: bool) -> Option<Answer> {
    let path = request.path.split('?').next().unwrap_or_default();
    let Some(file) = state.files.get(path).cloned() else {
        return (!path.starts_with("/v2/")).then(|| Answer::new(404, "there is no such file"));
    };
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    if header("accept-encoding") != Some("identity") {
        state.violations.push(format!("{path}: Accept-Encoding is {:?}", header("accept-encoding")));
    }
    match (&file.authorization, header("authorization")) {
        (Some(wanted), sent) if sent != Some(wanted) => {
            return Some(Answer::new(401, "who are you?").header("WWW-Authenticate: Bearer"));
        }
        (None, Some(_)) => state.violations.push(format!("{path}: nobody asked for credentials")),
        _ => {}
    }
    if let Some(location) = &file.location {
        return Some(Answer::new(302, "").header(format!("Location: {location}")));
    }
    let (none_match, since) = (header("if-none-match"), header("if-modified-since"));
    let same = match none_match {
        Some(etag) => file.etag.as_deref() == Some(etag),
        None => since.is_some() && file.last_modified.as_deref() == since,
    };
    if same && file.compares {
        return Some(file.describe(Answer::new(304, "")));
    }
    let total = file.bytes.len();
    let Some(range) = header("range").filter(|_| !ignore_range) else {
        return Some(file.describe(Answer::new(200, file.bytes.clone())));
    };
    let condition = header("if-range");
    if condition.is_none() || condition.is_some_and(|condition| condition.starts_with("W/")) {
        state.violations.push(format!("{path}: a range with If-Range {condition:?} may be of another file"));
    }
    if condition != file.etag.as_deref() && condition != file.last_modified.as_deref() {
        return Some(file.describe(Answer::new(200, file.bytes.clone())));
    }
    let start = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    let Some(start) = start.filter(|start| *start < total) else {
        return Some(Answer::new(416, "").header(format!("Content-Range: bytes */{total}")));
    };
    let answer = Answer::new(206, &file.bytes[start..]);
    Some(file.describe(answer.header(format!("Content-Range: bytes {start}-{}/{total}", total - 1))))
}
