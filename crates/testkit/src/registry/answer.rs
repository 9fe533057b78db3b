//! What the registry says when nothing goes wrong.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull>

use std::net::SocketAddr;

use super::wire::{Answer, Request};
use super::{Shared, State, access, upload};

pub(super) fn answer(request: &Request, address: SocketAddr, shared: &Shared, ignore_range: bool) -> Answer {
    let mut state = shared.state();
    let reads = matches!(request.method.as_str(), "GET" | "HEAD");
    if let Some(query) = request.path.strip_prefix("/token?") {
        return access::token(&mut state, request, query);
    }
    if request.path == "/token" && request.method == "POST" {
        return access::refresh(&mut state, request);
    }
    if reads && let Some(answer) = super::file::answer(&mut state, request, ignore_range) {
        return answer;
    }
    if let Err(denied) = access::authorize(&mut state, request, address) {
        return denied;
    }
    let Some(rest) = request.path.strip_prefix("/v2/") else {
        state.violations.push(format!("there is no {}", request.path));
        return failure(404, "UNSUPPORTED", "no such path");
    };
    // Who stands in for several registries is told which one is meant, in the query.
    let rest = match rest.contains("/uploads/") || rest.contains("/referrers/") {
        true => rest,
        false => rest.split('?').next().unwrap_or_default(),
    };
    if rest.is_empty() && reads {
        Answer::new(200, "{}").header("Content-Type: application/json")
    } else if let Some((repository, rest)) = rest.split_once("/blobs/uploads/") {
        upload::answer(&mut state, request, repository, rest)
    } else if let Some((repository, reference)) = rest.split_once("/manifests/") {
        match request.method.as_str() {
            "PUT" => upload::manifest(&mut state, request, repository, reference),
            "DELETE" => upload::delete(&mut state, repository, reference),
            _ if reads => manifest(&mut state, request, repository, reference),
            _ => failure(405, "UNSUPPORTED", "not with a manifest"),
        }
    } else if let Some((repository, digest)) = rest.split_once("/referrers/") {
        upload::referrers(&state, repository, digest)
    } else if let Some(repository) = rest.strip_suffix("/tags/list").filter(|_| reads) {
        upload::tags(&state, repository)
    } else if !reads {
        failure(405, "UNSUPPORTED", "only GET and HEAD")
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
    let Some(range) = range else {
        return Answer::new(200, bytes.clone()).header("Content-Type: application/octet-stream");
    };
    let span = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let span = span.and_then(|(start, end)| {
        let end = if end.is_empty() { total } else { end.parse::<usize>().ok()? + 1 };
        Some((start.parse::<usize>().ok()?, end.min(total)))
    });
    let answer = match span {
        Some((start, end)) if start < end => Answer::new(206, &bytes[start..end])
            .header(format!("Content-Range: bytes {start}-{}/{total}", end - 1)),
        _ => {
            state.violations.push(format!("{}: range {range:?} of {total}", request.path));
            return failure(416, "RANGE_INVALID", "no such range");
        }
    };
    answer.header("Content-Type: application/octet-stream")
}

pub(super) fn failure(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}","detail":{{}}}}]}}"#);
    Answer::new(status, body).header("Content-Type: application/json")
}
