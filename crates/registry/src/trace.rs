//! What happens when an image is looked up: each request, and whose word decided where it goes.

use std::time::Instant;

use kiln_core::{ImageRef, Platform};
use kiln_oci::media;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::auth::{Challenge, parse};
use crate::endpoint::Endpoint;
use crate::session::{Access, Ask, Session};
use crate::{RegistryClient, RegistryError, response};

/// How an image is looked up. Holds no secret and no token: addresses are without their queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The image, with registry and tag.
    pub image: String,
    /// The file that says which image is meant by a name without a registry, if one does.
    pub decided_by: Option<String>,
    /// The images that it may be, if those are several: they are looked for in this order.
    pub candidates: Vec<String>,
    /// All that may be asked, in order. A build ends with the first that delivers.
    pub servers: Vec<ServerTrace>,
    /// What the first delivers that delivers: the platforms of an index, or the one of an image.
    pub platforms: Vec<String>,
    /// The digest of the same.
    pub digest: Option<String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTrace {
    /// Host and port.
    pub host: String,
    /// Whether it stands before the registry itself.
    pub mirror: bool,
    /// Files and lines that decided that it is asked, and so.
    pub decided_by: Vec<String>,
    /// Whether its certificate is looked at; none without TLS.
    pub verified: Option<bool>,
    /// Files with certificates of authorities, besides the system's.
    pub authorities: Vec<String>,
    /// The proxy that it is reached through, without credentials, if the environment has one for it.
    pub proxy: Option<String>,
    /// What it was asked, in order.
    pub requests: Vec<RequestTrace>,
    /// Where the credentials are from that it got, or its token service.
    pub credentials: Option<String>,
    /// Sources of credentials that could not say.
    pub failed: Vec<String>,
    /// Whether it has the image.
    pub delivers: bool,
    /// What went wrong.
    pub error: Option<RegistryError>,
}

/// One request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestTrace {
    /// `HEAD`.
    pub method: String,
    /// Without its query.
    pub url: String,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// How long it took, milliseconds.
    pub milliseconds: u64,
    /// How one shall authenticate: `Bearer realm=... service=... scope=...`.
    pub challenge: Option<String>,
    /// Where one shall go instead, without its query.
    pub redirect: Option<String>,
    /// Headers that tell of limits, as they are.
    pub limits: Vec<(String, String)>,
}

impl RegistryClient {
    /// Looks an image up at each server that may have it, and tells what happened. A server that fails is no failure. Of
    /// several images that a short name may be, those after the first that is there are not looked for.
    ///
    /// # Errors
    /// The configuration is not what it should be, or forbids the image.
    pub fn trace(&self, name: &ImageRef) -> Result<Trace, RegistryError> {
        let meaning = self.meaning(name)?;
        let mut servers = Vec::new();
        let mut last = Err(RegistryError::Cancelled);
        for image in meaning.candidates.clone() {
            let session = self.session.clone();
            last = self.run(async move { trace(&session, &image).await });
            match &mut last {
                Ok(trace) => servers.append(&mut trace.servers),
                // What is blocked is passed over, as a build does.
                Err(RegistryError::Blocked { .. }) if meaning.candidates.len() > 1 => continue,
                Err(_) => break,
            }
            if servers.iter().any(|server: &ServerTrace| server.delivers) {
                break;
            }
        }
        let several = meaning.candidates.iter().filter(|_| meaning.candidates.len() > 1);
        let candidates = several.map(ToString::to_string).collect();
        Ok(Trace { servers, decided_by: meaning.decided_by, candidates, ..last? })
    }
}

async fn trace(session: &Session, image: &ImageRef) -> Result<Trace, RegistryError> {
    let mut trace = Trace {
        image: image.to_string(),
        decided_by: None,
        candidates: Vec::new(),
        servers: Vec::new(),
        platforms: Vec::new(),
        digest: None,
    };
    for endpoint in session.endpoints(image)? {
        let server = match session.settle(endpoint.clone()).await {
            Ok(endpoint) => {
                let server = Asked::new(session, &endpoint).all(image).await;
                if server.delivers && trace.digest.is_none() {
                    describe(session, &endpoint, image, &mut trace).await;
                }
                server
            }
            Err(error) => ServerTrace { error: Some(error), ..Asked::new(session, &endpoint).trace },
        };
        trace.servers.push(server);
    }
    Ok(trace)
}

/// Reads what an image is made for.
async fn describe(session: &Session, endpoint: &Endpoint, image: &ImageRef, trace: &mut Trace) {
    let ask = Ask::get("manifests", reference(image));
    let Ok(document) = session.document(endpoint, &ask, image.digest).await else { return };
    trace.digest = Some(document.digest.to_string());
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        platform: Option<Platforms>,
    }
    #[derive(Deserialize)]
    struct Platforms {
        os: String,
        architecture: String,
        variant: Option<String>,
    }
    let Ok(index) = serde_json::from_slice::<Index>(&document.bytes) else { return };
    for Platforms { os, architecture, variant } in
        index.manifests.into_iter().filter_map(|entry| entry.platform)
    {
        // Attestations say that they are for nothing.
        if os != "unknown" {
            let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
            let name = format!("{os}/{architecture}{variant}");
            trace.platforms.push(name.parse::<Platform>().map_or(name, |platform| platform.to_string()));
        }
    }
}

fn reference(image: &ImageRef) -> String {
    match (&image.digest, &image.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
    }
}

/// A server that is being asked.
struct Asked<'a> {
    session: &'a Session,
    endpoint: &'a Endpoint,
    trace: ServerTrace,
}

impl<'a> Asked<'a> {
    fn new(session: &'a Session, endpoint: &'a Endpoint) -> Self {
        let secure = endpoint.base.scheme() == "https";
        let trace = ServerTrace {
            host: endpoint.host.clone(),
            mirror: endpoint.mirror,
            decided_by: endpoint.from.clone(),
            verified: secure.then_some(!endpoint.trust.unverified),
            authorities: endpoint.trust.ca.iter().map(|file| file.display().to_string()).collect(),
            proxy: crate::proxy::before(&endpoint.base),
            requests: Vec::new(),
            credentials: None,
            failed: Vec::new(),
            delivers: false,
            error: None,
        };
        Self { session, endpoint, trace }
    }

    async fn all(mut self, image: &ImageRef) -> ServerTrace {
        match self.ask(image).await {
            Ok(()) => self.trace.delivers = true,
            Err(error) => self.trace.error = Some(error),
        }
        self.trace
    }

    async fn ask(&mut self, image: &ImageRef) -> Result<(), RegistryError> {
        if !(if image.digest.is_some() { self.endpoint.pull } else { self.endpoint.resolve }) {
            let reason = "by its hosts.toml it is not asked for this".to_owned();
            return Err(RegistryError::Protocol { host: self.endpoint.host.clone(), reason });
        }
        let ask = Ask { method: Method::HEAD, ..Ask::get("manifests", reference(image)) };
        let access = Access::default();
        let first = self.follow(&ask).await?;
        let answer = if first.status() == StatusCode::UNAUTHORIZED {
            let challenge = parse(first.headers());
            let search = self.session.search(self.endpoint).await?;
            self.trace.credentials = search.found.map(|found| found.source);
            self.trace.failed = search.failed;
            let started = Instant::now();
            let granted = self.session.authenticate(self.endpoint, &access, first, None).await;
            if let Some(Challenge::Bearer { realm, .. }) = challenge {
                let request = RequestTrace {
                    method: "TOKEN".to_owned(),
                    url: Url::parse(&realm).map_or_else(|_| realm.clone(), |url| shown(&url)),
                    status: granted.is_ok().then_some(200),
                    milliseconds: elapsed(started),
                    ..RequestTrace::default()
                };
                self.trace.requests.push(request);
            }
            granted?;
            self.follow(&ask).await?
        } else {
            first
        };
        if answer.status().is_success() {
            return Ok(());
        }
        Err(self.session.refused(self.endpoint, &ask, answer).await)
    }

    /// Sends one request, and on to where redirects lead.
    async fn follow(&mut self, ask: &Ask) -> Result<Response, RegistryError> {
        let mut url = self.endpoint.url(ask.kind, &ask.what);
        for _ in 0..=10 {
            let client = self.session.unfollowed.client(
                crate::endpoint::is_loopback(url.host_str().unwrap_or_default()),
                &self.endpoint.trust,
            )?;
            let ours = url.origin() == self.endpoint.base.origin();
            let grant = self.session.grant(self.endpoint, &ask.access).filter(|_| ours);
            let request = client.request(ask.method.clone(), url.clone());
            let request = request.header(ACCEPT, media::MANIFESTS.join(", "));
            let mut request = self.endpoint.dressed(request, &url, grant.is_some());
            if let Some(grant) = &grant {
                request = request.header(AUTHORIZATION, grant.header.clone());
            }
            let started = Instant::now();
            let timeouts = self.session.config.timeouts;
            let answer = tokio::time::timeout(timeouts.connect + timeouts.stall, request.send()).await;
            let mut seen = RequestTrace {
                method: ask.method.to_string(),
                url: shown(&url),
                milliseconds: elapsed(started),
                ..RequestTrace::default()
            };
            let host = self.endpoint.host.clone();
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                failed => {
                    self.trace.requests.push(seen);
                    return Err(match failed {
                        Ok(Err(error)) => response::transport(&host, timeouts.stall, &error),
                        _ => RegistryError::Stalled { host, seconds: timeouts.stall.as_secs() },
                    });
                }
            };
            seen.status = Some(answer.status().as_u16());
            seen.challenge = parse(answer.headers()).map(|challenge| spoken(&challenge));
            seen.limits = limits(answer.headers());
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.filter(|_| answer.status().is_redirection()).and_then(|to| url.join(to).ok());
            seen.redirect = next.as_ref().map(shown);
            self.trace.requests.push(seen);
            match next {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        let reason = "it redirects without end".to_owned();
        Err(RegistryError::Protocol { host: self.endpoint.host.clone(), reason })
    }
}

/// An address without what may be signed, or somebody's password.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // One that has a host can have no user.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.to_string()
}

fn spoken(challenge: &Challenge) -> String {
    match challenge {
        Challenge::Basic => "Basic".to_owned(),
        Challenge::Bearer { realm, service, scope } => {
            let realm = Url::parse(realm).map_or_else(|_| realm.clone(), |url| shown(&url));
            let mut text = format!("Bearer realm={realm}");
            for (name, value) in [("service", service), ("scope", scope)] {
                if let Some(value) = value {
                    text.push_str(&format!(" {name}={}", response::plain(value)));
                }
            }
            text
        }
    }
}

fn limits(headers: &HeaderMap) -> Vec<(String, String)> {
    let told =
        headers.iter().filter(|(name, _)| name.as_str().contains("ratelimit") || *name == "retry-after");
    told.filter_map(|(name, value)| Some((name.to_string(), response::plain(value.to_str().ok()?)))).collect()
}

fn elapsed(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
