//! The seam to whoever speaks HTTP.

use std::io::{self, Read};

use kiln_core::Cancel;

/// Speaks HTTP. It follows no redirects and retries nothing that has a body; TLS, proxies and timeouts are its own matter.
pub trait Http: Send + Sync {
    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// There is no answer. The text of the error is shown to people; it holds neither credentials nor the URL.
    fn exchange(&self, request: HttpRequest, cancel: &Cancel) -> io::Result<HttpResponse>;
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// `http://` or `https://`; without credentials.
    pub url: String,
    /// Names and values. One of them may be `Authorization`: log none.
    pub headers: Vec<(&'static str, String)>,
    /// POST with these bytes if there are any, else GET.
    pub body: Option<Vec<u8>>,
}

/// The answer to a request.
pub struct HttpResponse {
    /// 200, 302, 401...
    pub status: u16,
    /// The header `Location`.
    pub location: Option<String>,
    /// The header `Content-Type`.
    pub content_type: Option<String>,
    /// What follows; fails when the connection breaks, ends soon after cancellation.
    pub body: Box<dyn Read + Send>,
}
