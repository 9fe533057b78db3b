//! The other direction: what is pushed, byte for byte.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>

use kiln_core::Digest;
use serde_json::{Value, json};

use super::State;
use super::answer::failure;
use super::wire::{Answer, Request};

/// An upload that was begun.
#[derive(Debug, Default)]
pub(super) struct Session {
    repository: String,
    bytes: Vec<u8>,
    /// Part of its address, another one after each part: whoever makes up addresses is found out.
    state: usize,
}

/// Answers a request to `/v2/<repository>/blobs/uploads/<rest>`.
pub(super) fn answer(state: &mut State, request: &Request, repository: &str, rest: &str) -> Answer {
    if !request.headers.contains_key("content-length")
        && matches!(request.method.as_str(), "POST" | "PUT" | "PATCH")
    {
        state.violations.push(format!("{}: no Content-Length", request.line()));
    }
    if state.manners.most.is_some_and(|most| request.body.len() > most) {
        return Answer::new(413, "too large");
    }
    let id = rest.split('?').next().unwrap_or_default();
    if id.is_empty() {
        return begin(state, request, repository);
    }
    let known = state.uploads.get(id).map(|session| (session.repository.clone(), session.state));
    let Some((owner, number)) = known else {
        return failure(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    };
    if owner != repository || request.query("_state") != Some(number.to_string()) {
        state.violations.push(format!("{}: this upload is another's, or elsewhere", request.line()));
        return failure(400, "BLOB_UPLOAD_INVALID", "blob upload invalid");
    }
    match request.method.as_str() {
        "GET" => here(state, 204, id),
        "DELETE" => {
            state.uploads.remove(id);
            Answer::new(204, "")
        }
        "PATCH" => part(state, request, id),
        "PUT" => end(state, request, id),
        _ => failure(405, "UNSUPPORTED", "not with an upload"),
    }
}

fn begin(state: &mut State, request: &Request, repository: &str) -> Answer {
    if request.method != "POST" {
        state.violations.push(format!("{}: an upload begins with POST", request.line()));
        return failure(405, "UNSUPPORTED", "only POST");
    }
    if let (Some(digest), Some(from)) = (request.query("mount"), request.query("from")) {
        let digest: Option<Digest> = digest.parse().ok();
        let found = digest.and_then(|digest| state.blobs.get(&(from, digest)).cloned().zip(Some(digest)));
        if let Some((bytes, digest)) = found.filter(|_| state.manners.mounts) {
            state.blobs.insert((repository.to_owned(), digest), bytes);
            return created(repository, &digest);
        }
    }
    state.begun += 1;
    let id = format!("upload-{}", state.begun);
    state.uploads.insert(id.clone(), Session { repository: repository.to_owned(), ..Session::default() });
    let answer = here(state, 202, &id);
    match state.manners.least {
        Some(least) => answer.header(format!("OCI-Chunk-Min-Length: {least}")),
        None => answer,
    }
}

/// One part, which must begin where the last one ended.
fn part(state: &mut State, request: &Request, id: &str) -> Answer {
    if !state.manners.chunks {
        return failure(405, "UNSUPPORTED", "no parts here");
    }
    let Some(session) = state.uploads.get_mut(id) else { return failure(404, "BLOB_UPLOAD_UNKNOWN", "") };
    let range = request.headers.get("content-range").cloned();
    let parsed = range.as_deref().and_then(|range| {
        let (start, end) = range.split_once('-')?;
        Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()?))
    });
    match parsed {
        Some((start, end)) if end + 1 - start == request.body.len() => {
            if start != session.bytes.len() {
                return here(state, 416, id);
            }
        }
        _ => {
            state.violations.push(format!("PATCH of {} bytes with {range:?}", request.body.len()));
            return failure(400, "BLOB_UPLOAD_INVALID", "no such range");
        }
    }
    if session.repository.is_empty()
        || request.headers.get("content-type").map(String::as_str) != Some("application/octet-stream")
    {
        state.violations.push(format!("{}: Content-Type", request.line()));
    }
    let Some(session) = state.uploads.get_mut(id) else { return failure(404, "BLOB_UPLOAD_UNKNOWN", "") };
    session.bytes.extend_from_slice(&request.body);
    session.state += 1;
    here(state, 202, id)
}

/// The last request, with all of it, the rest or nothing.
fn end(state: &mut State, request: &Request, id: &str) -> Answer {
    let Some(session) = state.uploads.remove(id) else { return failure(404, "BLOB_UPLOAD_UNKNOWN", "") };
    let mut bytes = session.bytes;
    if !bytes.is_empty() && !request.body.is_empty() && !request.headers.contains_key("content-range") {
        state.violations.push(format!("{}: the rest of an upload, and not which", request.line()));
    }
    bytes.extend_from_slice(&request.body);
    match request.query("digest").and_then(|digest| digest.parse::<Digest>().ok()) {
        Some(digest) if digest == Digest::of(&bytes) => {
            state.blobs.insert((session.repository.clone(), digest), bytes);
            created(&session.repository, &digest)
        }
        Some(_) => failure(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
        None => {
            state.violations.push(format!("{}: no digest", request.line()));
            failure(400, "DIGEST_INVALID", "provided digest is malformed")
        }
    }
}

/// What came of a request's body before its connection was cut.
pub(super) fn cut(state: &mut State, request: &Request, void: bool) {
    let id = request.path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    if void {
        state.uploads.remove(id);
    } else if matches!(request.method.as_str(), "PUT" | "PATCH")
        && let Some(session) = state.uploads.get_mut(id)
    {
        session.bytes.extend_from_slice(&request.body);
    }
}

/// A manifest: all that it points to must be there.
pub(super) fn manifest(state: &mut State, request: &Request, repository: &str, reference: &str) -> Answer {
    let reference = super::access::decoded(reference);
    let digest = Digest::of(&request.body);
    if reference.contains(':') && reference != digest.to_string() {
        return failure(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    }
    let Ok(value) = serde_json::from_slice::<Value>(&request.body) else {
        return failure(400, "MANIFEST_INVALID", "manifest invalid");
    };
    let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
    if value.get("mediaType").and_then(Value::as_str).is_some_and(|own| own != media_type) {
        state.violations.push(format!("{}: Content-Type is {media_type:?}", request.line()));
    }
    let digests = |values: Option<&Value>| -> Vec<Option<Digest>> {
        let values = values.and_then(Value::as_array).cloned().unwrap_or_default();
        values.iter().map(|value| value.get("digest")?.as_str()?.parse().ok()).collect()
    };
    let mut blobs = digests(value.get("layers"));
    blobs.extend(value.get("config").map(|config| config.get("digest")?.as_str()?.parse().ok()));
    let has_blob = |digest: &Option<Digest>| {
        digest.is_some_and(|digest| state.blobs.contains_key(&(repository.to_owned(), digest)))
    };
    if !blobs.iter().all(has_blob) {
        return failure(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
    }
    let has_manifest = |digest: &Option<Digest>| {
        digest
            .is_some_and(|digest| state.manifests.contains_key(&(repository.to_owned(), digest.to_string())))
    };
    if !digests(value.get("manifests")).iter().all(has_manifest) {
        return failure(400, "MANIFEST_UNKNOWN", "manifest unknown");
    }
    for reference in [reference, digest.to_string()] {
        state
            .manifests
            .insert((repository.to_owned(), reference), (media_type.clone(), request.body.clone()));
    }
    let answer = Answer::new(201, "")
        .header(format!("Location: /v2/{repository}/manifests/{digest}"))
        .header(format!("Docker-Content-Digest: {digest}"));
    match value.pointer("/subject/digest").and_then(Value::as_str) {
        Some(subject) if state.manners.page.is_some() => answer.header(format!("OCI-Subject: {subject}")),
        _ => answer,
    }
}

/// Lists what is about a manifest, a page at a time.
pub(super) fn referrers(state: &State, repository: &str, rest: &str) -> Answer {
    let Some(page) = state.manners.page else { return Answer::new(404, "404 page not found") };
    let (digest, from) = rest.split_once("?from=").unwrap_or((rest, "0"));
    let from: usize = from.parse().unwrap_or(0);
    let all: Vec<Value> = state
        .manifests
        .iter()
        .filter(|((owner, reference), _)| owner == repository && reference.contains(':'))
        .filter_map(|((_, reference), (media_type, bytes))| {
            let value: Value = serde_json::from_slice(bytes).ok()?;
            (value.pointer("/subject/digest")?.as_str()? == digest).then(|| {
                json!({ "mediaType": media_type, "digest": reference, "size": bytes.len(),
                    "artifactType": value.get("artifactType"), "annotations": value.get("annotations") })
            })
        })
        .collect();
    let manifests: Vec<&Value> = all.iter().skip(from).take(page).collect();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    let answer = Answer::new(200, index.to_string());
    if from + page < all.len() {
        let next = format!("/v2/{repository}/referrers/{digest}?from={}", from + page);
        return answer.header(format!("Link: <{next}>; rel=\"next\""));
    }
    answer
}

/// Lists the tags of a repository.
pub(super) fn tags(state: &State, repository: &str) -> Answer {
    let of = |(owner, reference): &&(String, String)| owner == repository && !reference.contains(':');
    let tags: Vec<&String> = state.manifests.keys().filter(of).map(|(_, tag)| tag).collect();
    if tags.is_empty() {
        return failure(404, "NAME_UNKNOWN", "repository name not known to registry");
    }
    Answer::new(200, json!({ "name": repository, "tags": tags }).to_string())
}

/// Takes a manifest away, with its tags.
pub(super) fn delete(state: &mut State, repository: &str, digest: &str) -> Answer {
    let Some((_, bytes)) = state.manifests.get(&(repository.to_owned(), digest.to_owned())).cloned() else {
        return failure(404, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    state.manifests.retain(|(owner, _), (_, other)| owner != repository || *other != bytes);
    Answer::new(202, "")
}

fn created(repository: &str, digest: &Digest) -> Answer {
    Answer::new(201, "")
        .header(format!("Location: /v2/{repository}/blobs/{digest}"))
        .header(format!("Docker-Content-Digest: {digest}"))
}

/// Says where an upload goes on, and how far it is.
fn here(state: &State, status: u16, id: &str) -> Answer {
    let Some(session) = state.uploads.get(id) else { return failure(404, "BLOB_UPLOAD_UNKNOWN", "") };
    let Session { repository, bytes, state: number } = session;
    let host = state.manners.elsewhere.as_deref().unwrap_or_default();
    Answer::new(status, "")
        .header(format!("Location: {host}/v2/{repository}/blobs/uploads/{id}?_state={number}"))
        .header(format!("Range: 0-{}", bytes.len().saturating_sub(1)))
}
