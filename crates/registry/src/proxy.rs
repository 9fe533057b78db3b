//! Which proxy of the environment stands before a server, for messages: reqwest goes by the same table.

use std::sync::OnceLock;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

use crate::endpoint::is_loopback;

/// Returns scheme, host and port of the proxy that an address is reached through. Never its credentials.
pub(crate) fn before(url: &Url) -> Option<String> {
    static TABLE: OnceLock<Matcher> = OnceLock::new();
    if is_loopback(url.host_str()?) {
        return None;
    }
    let proxy = TABLE.get_or_init(Matcher::from_system).intercept(&url.as_str().parse().ok()?)?;
    let (scheme, host) = (proxy.uri().scheme_str()?, proxy.uri().host()?);
    let port = proxy.uri().port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{host}{port}"))
}
