//! Making sense of answers, and of their absence.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

use crate::{RegistryError, date, proxy};

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
    // Nobody thinks of it when a host does not answer that does in a browser.
    let proxy = error.url().filter(|_| error.is_connect()).and_then(proxy::before);
    let cause = proxy.map_or(cause.clone(), |proxy| format!("{cause}, through the proxy {proxy}"));
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
/// so that nobody's clock has to be right. Without that word, when what limits the rate says that there is room again.
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>,
/// <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    /// Seconds from now up to here, seconds since 1970 from here on: Docker Hub and others send those.
    const EPOCH: u64 = 1_000_000_000;
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let now = || date::parse(text(DATE.as_str())?);
    let until = |moment: i64| u64::try_from(moment.saturating_sub(now()?).max(0)).ok();
    let number = |text: &str| match text.parse::<u64>().ok()? {
        moment @ EPOCH.. => until(i64::try_from(moment).ok()?),
        seconds => Some(seconds),
    };
    let seconds = match text(RETRY_AFTER.as_str()).or_else(|| text("x-retry-after")) {
        Some(after) => number(after).or_else(|| until(date::parse(after)?)),
        None => limits(headers).find_map(number).or_else(|| {
            ["ratelimit-reset", "x-ratelimit-reset"].into_iter().find_map(|name| number(text(name)?))
        }),
    };
    seconds.map(Duration::from_secs)
}

/// `RateLimit: "default";r=0;t=50`, and `limit=100, remaining=0, reset=50` before the eighth draft: seconds until reset.
fn limits(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all("ratelimit").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([';', ','])).filter_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        matches!(name, "t" | "reset").then_some(value)
    })
}

/// Returns what a registry says about its limit: `0 of 100 in 21600 s left`, from `ratelimit-limit: 100;w=21600`.
/// <https://docs.docker.com/docker-hub/usage/pulls/>
pub(crate) fn limit(headers: &HeaderMap) -> Option<String> {
    let field = |name: &str| {
        let mut parts = headers.get(name)?.to_str().ok()?.split(';').map(str::trim);
        let count: u64 = parts.next()?.parse().ok()?;
        let window = parts.find_map(|part| part.strip_prefix("w=")?.parse::<u64>().ok());
        Some((count, window))
    };
    let (limit, window) = field("ratelimit-limit")?;
    let left = field("ratelimit-remaining").map_or(0, |(left, _)| left);
    let window = window.map(|window| format!(" in {window} s")).unwrap_or_default();
    Some(format!("{left} of {limit}{window} left"))
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

    type Lines<'a> = &'a [(&'a str, &'a str)];

    #[test]
    fn waits_as_long_as_the_server_says() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        let after = |text| ("retry-after", text);
        let cases: [(Lines<'_>, Option<u64>); 17] = [
            (&[], None),
            (&[after("120")], Some(120)),
            (&[after(" 0 ")], Some(0)),
            (&[after("soon"), ("date", date)], None),
            (&[after("Wed, 21 Oct 2015 07:28:30 GMT"), ("date", date)], Some(30)),
            (&[after("Wed, 21 Oct 2015 07:27:00 GMT"), ("date", date)], Some(0)),
            // Without the server's clock a date says nothing.
            (&[after(date)], None),
            (&[after("1445412490")], None),
            (&[after("1445412490"), ("date", date)], Some(10)),
            (&[("x-retry-after", "7")], Some(7)),
            (&[("ratelimit-reset", "50")], Some(50)),
            (&[("x-ratelimit-reset", "1445412490"), ("date", date)], Some(10)),
            (&[("ratelimit", "\"default\";r=0;t=40")], Some(40)),
            (&[("ratelimit", "limit=100, remaining=0, reset=41")], Some(41)),
            (&[("ratelimit", "limit=100"), ("ratelimit-reset", "42")], Some(42)),
            (&[("ratelimit", "soon")], None),
            (&[after("3"), ("ratelimit-reset", "50")], Some(3)),
        ];
        for (lines, seconds) in cases {
            let lines = lines.iter().map(|(name, text)| (name.parse().unwrap(), text.parse().unwrap()));
            let headers: HeaderMap = lines.collect();
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{headers:?}");
        }
    }

    #[test]
    fn says_what_the_limit_is() {
        let cases: [(Lines<'_>, Option<&str>); 4] = [
            (&[], None),
            (
                &[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600")],
                Some("0 of 100 in 21600 s left"),
            ),
            (&[("ratelimit-limit", "10")], Some("0 of 10 left")),
            (&[("ratelimit-limit", "many")], None),
        ];
        for (lines, expected) in cases {
            let lines = lines.iter().map(|(name, text)| (name.parse().unwrap(), text.parse().unwrap()));
            let headers: HeaderMap = lines.collect();
            assert_eq!(limit(&headers).as_deref(), expected, "{headers:?}");
        }
    }
}
