//! What is sent along to which host.

use std::collections::BTreeMap;
use std::fmt;

use reqwest::header::HeaderValue;

use super::DownloadError;
use super::address::Address;

/// Begins the name of a secret that is a whole `Authorization` header for the host that follows.
const HEADER: &str = "HTTP_AUTH_HEADER_";
/// Begins the name of a secret that is a bearer token for the host that follows.
const TOKEN: &str = "HTTP_AUTH_TOKEN_";

/// `Authorization` headers by host, without port. Its debug form shows the hosts alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HostCredentials(BTreeMap<String, Vec<u8>>);

impl HostCredentials {
    /// Takes those secrets that are for hosts, as BuildKit names them: `HTTP_AUTH_HEADER_<host>` and
    /// `HTTP_AUTH_TOKEN_<host>`, the token if there are both. A line break at the end, as files have it, is no part of it.
    pub fn of_secrets<'s>(secrets: impl IntoIterator<Item = (&'s str, &'s [u8])>) -> Self {
        let mut found = BTreeMap::new();
        let mut tokens = BTreeMap::new();
        for (name, value) in secrets {
            let value = value.trim_ascii_end();
            if let Some(host) = name.strip_prefix(HEADER) {
                found.insert(host.to_ascii_lowercase(), value.to_vec());
            } else if let Some(host) = name.strip_prefix(TOKEN) {
                tokens.insert(host.to_ascii_lowercase(), [b"Bearer ", value].concat());
            }
        }
        found.extend(tokens);
        Self(found)
    }

    /// Returns what may be sent to an address.
    pub(super) fn of(&self, address: &Address) -> Result<Credential, DownloadError> {
        let Some(value) = self.0.get(address.name()) else { return Ok(Credential::None) };
        if !address.is_private() {
            return Ok(Credential::Withheld);
        }
        let mut header = HeaderValue::from_bytes(value).map_err(|_| DownloadError::Address {
            url: address.shown(),
            reason: format!("the secret for {} cannot be sent: it is not one line of text", address.name()),
        })?;
        header.set_sensitive(true);
        Ok(Credential::Header(header))
    }
}

impl fmt::Debug for HostCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What there is to show to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    None,
    /// There is something, but everybody on the way could read it.
    Withheld,
    Header(HeaderValue),
}

impl Credential {
    /// Says what was sent, to who was denied access.
    pub(super) fn said(&self, address: &Address) -> String {
        match self {
            Self::None => format!("no credentials are given for {}", address.name()),
            Self::Withheld => "the credentials for it are sent over https only".to_owned(),
            Self::Header(_) => "it wants other credentials".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_for_one_host_over_https() {
        let secrets: [(&str, &[u8]); 5] = [
            ("HTTP_AUTH_HEADER_one.example", b"Basic abc\n"),
            ("HTTP_AUTH_TOKEN_Two.example", b"tok\r\n"),
            ("HTTP_AUTH_TOKEN_both", b"token"),
            ("HTTP_AUTH_HEADER_both", b"header"),
            ("other", b"x"),
        ];
        let credentials = HostCredentials::of_secrets(secrets);
        let cases = [
            ("https://one.example/a", Some("Basic abc")),
            ("https://one.example:8443/a", Some("Basic abc")),
            ("https://ONE.example/a", Some("Basic abc")),
            ("https://sub.one.example/a", None),
            ("https://two.example/a", Some("Bearer tok")),
            ("https://both/a", Some("Bearer token")),
            ("https://other/a", None),
        ];
        for (url, sent) in cases {
            let sent =
                sent.map_or(Credential::None, |sent| Credential::Header(HeaderValue::from_static(sent)));
            assert_eq!(credentials.of(&Address::parse(url).unwrap()).unwrap(), sent, "{url}");
        }
        let plain = Address::parse("http://one.example/a").unwrap();
        assert_eq!(credentials.of(&plain).unwrap(), Credential::Withheld);
        assert_eq!(format!("{credentials:?}"), r#"{"both", "one.example", "two.example"}"#);
    }
}
