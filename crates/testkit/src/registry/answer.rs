//! What the registry says when nothing goes wrong.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull>

use std::net::SocketAddr;

use super::wire::{Answer, Request};
use super::{Access, Shared, State};

pub(super) fn answer(request: &Request, address: SocketAddr, shared: &Shared, ignore_range: bool) -> Answer {
    let mut state = shared.state();
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return failure(405, "UNSUPPORTED", "only GET and HEAD");
    }
    if let Some(query) = request.path.strip_prefix("/token?") {
        return token(&mut state, request, query);
    }
    if let Some(answer) = super::file::answer(&mut state, request, ignore_range) {
        return answer;
    }
    if let Err(denied) = authorize(&mut state, request, address) {
        return denied;
    }
    let Some(rest) = request.path.strip_prefix("/v2/") else {
        state.violations.push(format!("there is no {}", request.path));
        return failure(404, "UNSUPPORTED", "no such path");
    };
    if let Some((repository, reference)) = rest.split_once("/manifests/") {
        manifest(&mut state, request, repository, reference)
    } else if let Some((repository, digest)) = rest.split_once("/blobs/") {
        blob(&mut state, request, repository, digest, ignore_range)
    } else {
        state.violations.push(format!("there is no {}", request.path));
        failure(404, "UNSUPPORTED", "no such path")
    }
}

fn manifest(state: &mut State, request: &Request, repository: &str, reference: &str) -> Answer {
    let Some((media_type, bytes)) = state.manifests.get(&(repository.to_owned(), reference.to_owned()))
    else {
        let known = state.manifests.keys().any(|(name, _)| name == repository);
        return if known {
            failure(404, "MANIFEST_UNKNOWN", "manifest unknown")
        } else {
            failure(404, "NAME_UNKNOWN", "repository name not known to registry")
        };
    };
    let (media_type, bytes) = (media_type.clone(), bytes.clone());
    // A registry may answer 404 to who does not say that this type is welcome.
    let accept = request.headers.get("accept").cloned().unwrap_or_default();
    if !media_type.is_empty() && !accept.split(',').any(|accepted| accepted.trim() == media_type) {
        state.violations.push(format!("{}: Accept is {accept:?}, but it is {media_type}", request.path));
    }
    let digest = kiln_core::Digest::of(&bytes);
    let answer = Answer::new(200, bytes).header(format!("Docker-Content-Digest: {digest}"));
    if media_type.is_empty() { answer } else { answer.header(format!("Content-Type: {media_type}")) }
}

fn blob(state: &mut State, request: &Request, repository: &str, digest: &str, ignore_range: bool) -> Answer {
    let Ok(digest) = digest.parse() else {
        state.violations.push(format!("{}: no digest", request.path));
        return failure(400, "DIGEST_INVALID", "provided digest is malformed");
    };
    let Some(bytes) = state.blobs.get(&(repository.to_owned(), digest)) else {
        return failure(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let total = bytes.len();
    let range = request.headers.get("range").filter(|_| !ignore_range);
    let answer =
        match range.map(|range| range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'))) {
            None => Answer::new(200, bytes.clone()),
            Some(start) => match start.and_then(|start| start.parse::<usize>().ok()) {
                Some(start) if start < total => Answer::new(206, &bytes[start..])
                    .header(format!("Content-Range: bytes {start}-{}/{total}", total - 1)),
                _ => {
                    state.violations.push(format!("{}: range {range:?} of {total}", request.path));
                    return failure(416, "RANGE_INVALID", "no such range");
                }
            },
        };
    answer.header("Content-Type: application/octet-stream")
}

fn authorize(state: &mut State, request: &Request, address: SocketAddr) -> Result<(), Answer> {
    let sent = request.headers.get("authorization").map(String::as_str);
    let repository = request.path.trim_start_matches("/v2/").split("/manifests/").next().unwrap_or_default();
    let repository = repository.split("/blobs/").next().unwrap_or_default();
    match &state.access {
        Access::Open => {
            if sent.is_some() {
                state.violations.push(format!("{}: nobody asked for credentials", request.path));
            }
            Ok(())
        }
        Access::Token(_) => {
            let token = sent.and_then(|sent| sent.strip_prefix("Bearer ")).unwrap_or_default();
            if state.tokens.contains(&format!("{repository} {token}")) {
                return Ok(());
            }
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"fake\",scope=\"repository:{repository}:pull\""
            );
            Err(failure(401, "UNAUTHORIZED", "authentication required").header(challenge))
        }
        Access::Basic(user, password) => {
            if sent == Some(basic(user, password).as_str()) {
                return Ok(());
            }
            Err(failure(401, "UNAUTHORIZED", "authentication required")
                .header("WWW-Authenticate: Basic realm=\"fake\""))
        }
    }
}

fn token(state: &mut State, request: &Request, query: &str) -> Answer {
    let sent = request.headers.get("authorization").cloned();
    match &state.access {
        Access::Token(None) if sent.is_some() => {
            state.violations.push("credentials for a token that is free".to_owned());
        }
        Access::Token(Some((user, password))) if sent != Some(basic(user, password)) => {
            return failure(401, "UNAUTHORIZED", "incorrect username or password");
        }
        Access::Token(_) => {}
        _ => state.violations.push("nobody asked for a token".to_owned()),
    }
    let scope = query.split('&').find_map(|pair| pair.strip_prefix("scope=")).unwrap_or_default();
    let scope = scope.replace("%3A", ":").replace("%2F", "/");
    let Some(repository) = scope.strip_prefix("repository:").and_then(|scope| scope.strip_suffix(":pull"))
    else {
        state.violations.push(format!("scope of a token: {scope:?}"));
        return failure(400, "DENIED", "no such scope");
    };
    if !query.split('&').any(|pair| pair == "service=fake") {
        state.violations.push(format!("service of a token: {query:?}"));
    }
    state.issued += 1;
    let token = format!("secret-token-{}", state.issued);
    state.tokens.insert(format!("{repository} {token}"));
    Answer::new(200, format!(r#"{{"token":"{token}","expires_in":300}}"#))
}

fn failure(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}","detail":{{}}}}]}}"#);
    Answer::new(status, body).header("Content-Type: application/json")
}

/// `Basic` with base64, by hand: this is the other side of what is tested.
fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("Basic ");
    for chunk in format!("{user}:{password}").as_bytes().chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * position) & 63) as usize];
            out.push(if position <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}
