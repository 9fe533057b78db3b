//! Addresses, and what of them may be shown.

use reqwest::Url;

use super::DownloadError;
use crate::endpoint::is_loopback;

/// The address of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address(pub(super) Url);

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, DownloadError> {
        let wrong = |reason: &str| DownloadError::Address { url: redacted(text), reason: reason.to_owned() };
        let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("write http://HOST/PATH or https://HOST/PATH"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a name or password in it would stay in the image's history"));
        }
        // Never sent.
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Host and port, for messages.
    pub(super) fn host(&self) -> String {
        let name = self.name();
        self.0.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
    }

    /// The host alone, which credentials are for.
    pub(super) fn name(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(self.name())
    }

    /// Whether nobody on the way can listen.
    pub(super) fn is_private(&self) -> bool {
        self.0.scheme() == "https" || self.is_loopback()
    }

    pub(super) fn shown(&self) -> String {
        redacted(self.0.as_str())
    }

    /// Whether the same server answers there.
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        self.0.origin() == other.0.origin()
    }

    /// Returns where a redirect leads.
    pub(super) fn join(&self, location: &str) -> Result<Self, DownloadError> {
        let refused =
            |problem: &str| DownloadError::Redirect { url: self.shown(), problem: problem.to_owned() };
        let next = self.0.join(location).map_err(|_| refused("to what is no address"))?;
        match (self.0.scheme(), next.scheme()) {
            ("https", "http") => {
                return Err(refused(&format!("from https to plain http ({})", redacted(next.as_str()))));
            }
            (_, "http" | "https") => {}
            _ => return Err(refused(&format!("to {}, which is no http address", redacted(next.as_str())))),
        }
        let mut next = next;
        next.set_fragment(None);
        // Somebody else's idea of a name and password is not ours to send.
        let _ = next.set_username("");
        let _ = next.set_password(None);
        Ok(Self(next))
    }
}

/// Returns an address as it may be shown and logged: without name and password, and without its query, which is where
/// signatures and tokens are.
pub fn redacted(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let query = if url[end..].starts_with('?') { "?..." } else { "" };
    let plain = &url[..end];
    let (scheme, rest) = plain.split_once("://").map_or(("", plain), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}{separator}{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_secrets() {
        let cases = [
            ("https://example.org/a/b.tar.gz", "https://example.org/a/b.tar.gz"),
            ("https://me:secret@example.org/a", "https://example.org/a"),
            ("https://me:se@cret@example.org:8443/a@b", "https://example.org:8443/a@b"),
            ("https://example.org/a?token=secret#x", "https://example.org/a?..."),
            ("https://example.org?token=secret", "https://example.org?..."),
            ("https://example.org/a#token", "https://example.org/a"),
            ("me:secret@example.org/a", "example.org/a"),
            ("", ""),
        ];
        for (url, shown) in cases {
            assert_eq!(redacted(url), shown, "{url}");
        }
    }

    #[test]
    fn takes_addresses_of_files_only() {
        let address = Address::parse("https://Example.org:443/a?b=c#d").unwrap();
        assert_eq!((address.0.as_str(), address.name()), ("https://example.org/a?b=c", "example.org"));
        for wrong in
            ["", "a", "ftp://a/b", "https://", "file:///etc/passwd", "https://me@a/b", "https://:pw@a/b"]
        {
            let error = Address::parse(wrong).unwrap_err();
            assert!(matches!(&error, DownloadError::Address { .. }), "{wrong}: {error}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }

    #[test]
    fn follows_redirects_upwards_only() {
        let to = |from: &str, location: &str| {
            Address::parse(from).unwrap().join(location).map(|address| address.0.to_string())
        };
        assert_eq!(to("http://a/b/c", "d").unwrap(), "http://a/b/d");
        assert_eq!(to("http://a/b/c", "https://me:pw@x/y#z").unwrap(), "https://x/y");
        assert_eq!(to("https://a/b", "//x/y").unwrap(), "https://x/y");
        for (from, location) in [
            ("https://a/b", "http://a/b"),
            ("https://a/b", "http://127.0.0.1/b"),
            ("http://a/b", "file:///etc/passwd"),
            ("http://a/b", "data:,x"),
            ("http://a/b", "http://"),
        ] {
            let error = to(from, location).unwrap_err();
            assert!(matches!(error, DownloadError::Redirect { .. }), "{from} -> {location}: {error}");
        }
    }
}
