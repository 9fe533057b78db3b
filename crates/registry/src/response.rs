//! Making sense of answers, and of their absence.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

use crate::{RegistryError, date};

/// Says what a failed exchange was.
pub(crate) fn transport(host: &str, stall: Duration, error: &reqwest::Error) -> RegistryError {
    let host = host.to_owned();
    let mut inner: Option<&(dyn Error + 'static)> = error.source();
    let mut cause = None;
    while let Some(error) = inner {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return RegistryError::Tls { host, cause: plain(&tls.to_string()) };
        }
        cause = Some(error.to_string());
        // An I/O error passes over what it wraps when it is asked for its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    if error.is_timeout() && !error.is_connect() {
        return RegistryError::Stalled { host, seconds: stall.as_secs() };
    }
    if error.is_redirect() {
        let reason = cause.unwrap_or_else(|| "a redirect that leads nowhere".to_owned());
        return RegistryError::Protocol { host, reason };
    }
    let cause = match cause {
        Some(cause) => plain(&cause),
        None if error.is_timeout() => "the connection took too long".to_owned(),
        None => "the connection broke".to_owned(),
    };
    RegistryError::Unreachable { host, cause }
}

/// Waits for the next piece of a body, no longer than a server may be silent; none at its end.
///
/// Not reqwest's read timeout: that counts while a request is still being sent, too.
pub(crate) async fn chunk(
    host: &str,
    stall: Duration,
    answer: &mut Response,
) -> Result<Option<Bytes>, RegistryError> {
    match tokio::time::timeout(stall, answer.chunk()).await {
        Ok(piece) => piece.map_err(|error| transport(host, stall, &error)),
        Err(_) => Err(RegistryError::Stalled { host: host.to_owned(), seconds: stall.as_secs() }),
    }
}

/// Reads a small body, no more than `limit` bytes of it.
pub(crate) async fn body(
    host: &str,
    stall: Duration,
    what: &str,
    limit: u64,
    mut response: Response,
) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge { host: host.to_owned(), what: what.to_owned(), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = chunk(host, stall, &mut response).await? {
        if bytes.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Returns what the registry says of a failure: code and message of the first error in its JSON.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
pub(crate) async fn detail(stall: Duration, response: Response) -> Option<String> {
    let bytes = body("", stall, "", 64 << 10, response).await.ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let error = value.get("errors")?.get(0)?;
    let field = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let text = match (field("code"), field("message")) {
        ("", message) => message.to_owned(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    Some(plain(&text)).filter(|text| !text.is_empty())
}

/// Returns how long the server asks to be left alone: seconds, or a date, which is held against the server's own `Date`,
/// so that nobody's clock has to be right.
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(RETRY_AFTER)?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let seconds = date::parse(after)?.saturating_sub(date::parse(text(DATE)?)?);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Other people's words, fit for a terminal: one line, no control characters, not endless, no errno, lower case.
pub(crate) fn plain(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or(text);
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect::<String>();
    let clean = clean.trim();
    // "Connection refused", but not "NAME_UNKNOWN".
    let mut chars = clean.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain([second]).chain(chars).collect()
        }
        _ => clean.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_as_long_as_the_server_says() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        let cases = [
            ("", "", None),
            ("120", "", Some(120)),
            (" 0 ", "", Some(0)),
            ("soon", date, None),
            ("Wed, 21 Oct 2015 07:28:30 GMT", date, Some(30)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", date, Some(0)),
            // Without the server's clock a date says nothing.
            (date, "", None),
        ];
        for (after, date, seconds) in cases {
            let lines = [(RETRY_AFTER, after), (DATE, date)].into_iter().filter(|(_, text)| !text.is_empty());
            let headers: HeaderMap = lines.map(|(name, text)| (name, text.parse().unwrap())).collect();
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{after:?} {date:?}");
        }
    }
}
