//! Who may do what, and the token service.
//! <https://distribution.github.io/distribution/spec/auth/token/>

use std::net::SocketAddr;

use super::answer::failure;
use super::wire::{Answer, Request};
use super::{Access, State};

/// Refuses whoever may not do what he asks for.
pub(super) fn authorize(state: &mut State, request: &Request, address: SocketAddr) -> Result<(), Answer> {
    let sent = request.headers.get("authorization").map(String::as_str);
    let repository = request.path.trim_start_matches("/v2/").split("/manifests/").next().unwrap_or_default();
    let repository = repository.split("/blobs/").next().unwrap_or_default();
    let repository = repository.trim_end_matches("/tags/list");
    let writes = !matches!(request.method.as_str(), "GET" | "HEAD");
    let from = request.query("from").filter(|_| writes);
    match &state.access {
        Access::Open => {
            if sent.is_some() {
                state.violations.push(format!("{}: nobody asked for credentials", request.path));
            }
            Ok(())
        }
        Access::Token(_) | Access::Identity { .. } | Access::ReadOnly => {
            let token = sent.and_then(|sent| sent.strip_prefix("Bearer ")).unwrap_or_default();
            let may = |wanted: &str, writes: bool| {
                let granted = state.tokens.get(token).into_iter().flatten();
                granted.into_iter().any(|(repository, push)| repository == wanted && (*push || !writes))
            };
            if may(repository, writes) && from.as_deref().is_none_or(|from| may(from, false)) {
                return Ok(());
            }
            let actions = if writes { "pull,push" } else { "pull" };
            let from = from.map(|from| format!(" repository:{from}:pull")).unwrap_or_default();
            // The front door is no repository.
            let scope = match repository {
                "" => String::new(),
                repository => format!(",scope=\"repository:{repository}:{actions}{from}\""),
            };
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"fake\"{scope}");
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

/// Gives a token for exactly what is asked.
pub(super) fn token(state: &mut State, request: &Request, query: &str) -> Answer {
    let sent = request.headers.get("authorization").cloned();
    match &state.access {
        Access::Token(None) | Access::ReadOnly if sent.is_some() => {
            state.violations.push("credentials for a token that is free".to_owned());
        }
        Access::Token(Some((user, password))) if sent != Some(basic(user, password)) => {
            return failure(401, "UNAUTHORIZED", "incorrect username or password");
        }
        Access::Identity { user, password, .. } if sent != Some(basic(user, password)) => {
            return failure(401, "UNAUTHORIZED", "incorrect username or password");
        }
        Access::Token(_) | Access::Identity { .. } | Access::ReadOnly => {}
        _ => state.violations.push("nobody asked for a token".to_owned()),
    }
    let mut granted = Vec::new();
    for scope in query.split('&').filter_map(|pair| pair.strip_prefix("scope=")) {
        let scope = decoded(scope);
        let parts: Vec<&str> = scope.split(':').collect();
        match parts[..] {
            ["repository", name, "pull"] => granted.push((name.to_owned(), false)),
            ["repository", name, "pull,push"] => {
                granted.push((name.to_owned(), !matches!(state.access, Access::ReadOnly)));
            }
            _ => state.violations.push(format!("scope of a token: {scope:?}")),
        }
    }
    // Only a login is for no repository.
    let login = query.split('&').any(|pair| pair == "offline_token=true");
    if login {
        granted.push((String::new(), false));
        if !query.contains("account=") || !query.contains("client_id=") {
            state.violations.push(format!("a login by nobody: {query:?}"));
        }
    }
    if granted.is_empty() {
        state.violations.push(format!("a token for nothing: {query:?}"));
    }
    if !query.split('&').any(|pair| pair == "service=fake") {
        state.violations.push(format!("service of a token: {query:?}"));
    }
    let token = issue(state, granted);
    let more = match &state.access {
        Access::Identity { identity, .. } if login => format!(r#","refresh_token":"{identity}""#),
        _ => String::new(),
    };
    let life = state.life.as_deref().unwrap_or(r#""expires_in":300"#);
    Answer::new(200, format!(r#"{{"token":"{token}",{life}{more}}}"#))
}

/// Gives a token for an identity token.
/// <https://distribution.github.io/distribution/spec/auth/oauth/>
pub(super) fn refresh(state: &mut State, request: &Request) -> Answer {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let field = |name: &str| {
        let value = body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| decoded(&value.replace('+', " ")))
    };
    let form = request.headers.get("content-type").map(String::as_str);
    let right = field("grant_type").as_deref() == Some("refresh_token")
        && field("service").as_deref() == Some("fake")
        && field("client_id").is_some_and(|client| !client.is_empty())
        && form == Some("application/x-www-form-urlencoded")
        && !request.headers.contains_key("authorization");
    if !right {
        state.violations.push(format!("no OAuth form: {form:?} {body:?}"));
    }
    match &state.access {
        Access::Identity { identity, .. } if field("refresh_token").as_ref() == Some(identity) => {}
        _ => return failure(401, "UNAUTHORIZED", "invalid refresh token"),
    }
    let mut granted = Vec::new();
    for scope in field("scope").unwrap_or_default().split_whitespace() {
        match scope.split(':').collect::<Vec<_>>()[..] {
            ["repository", name, "pull"] => granted.push((name.to_owned(), false)),
            ["repository", name, "pull,push"] => granted.push((name.to_owned(), true)),
            _ => state.violations.push(format!("scope of a token: {scope:?}")),
        }
    }
    let token = issue(state, granted);
    Answer::new(200, format!(r#"{{"access_token":"{token}","expires_in":300}}"#))
}

fn issue(state: &mut State, granted: Vec<(String, bool)>) -> String {
    state.issued += 1;
    let token = format!("secret-token-{}", state.issued);
    state.tokens.insert(token.clone(), granted);
    token
}

/// Undoes percent encoding, of ASCII.
pub(super) fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(code) => out.extend([char::from(code)].into_iter().chain(part[2..].chars())),
            None => out.extend(["%", part]),
        }
    }
    out
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
