//! From text to the parts of a git URL.

use super::query::{self, Wanted};
use super::{GitCredentials, GitScheme, GitUrl, GitUrlError};

/// A text in its parts, options not looked at yet.
struct Parts<'a> {
    scheme: GitScheme,
    remote: String,
    credentials: Option<GitCredentials>,
    query: &'a str,
    fragment: String,
    looks_like_path: bool,
}

pub(super) fn parse(text: &str) -> Option<Result<GitUrl, GitUrlError>> {
    if text.starts_with("./") || text.starts_with("../") || text.chars().any(char::is_control) {
        return None;
    }
    let parts = if text.starts_with("github.com/") {
        Parts { looks_like_path: true, ..of_url(GitScheme::Https, text)? }
    } else {
        match text.split_once("://") {
            Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                of_url(known(scheme)?, rest).filter(is_repository)?
            }
            _ => of_scp(text)?,
        }
    };
    let fail = |reason: String| GitUrlError { url: parts.remote.clone(), reason };
    Some(safe(&parts).and_then(|()| query::read(&parts.fragment, parts.query)).map_err(fail).map(|wanted| {
        let Wanted { reference, subdir, checksum, keep_git_dir, submodules } = wanted;
        GitUrl {
            scheme: parts.scheme,
            remote: parts.remote.clone(),
            credentials: parts.credentials.clone(),
            reference,
            subdir,
            checksum,
            keep_git_dir,
            submodules,
            looks_like_path: parts.looks_like_path,
        }
    }))
}

fn known(scheme: &str) -> Option<GitScheme> {
    let schemes = [
        ("http", GitScheme::Http),
        ("https", GitScheme::Https),
        ("git", GitScheme::Git),
        ("ssh", GitScheme::Ssh),
        ("file", GitScheme::File),
    ];
    schemes.iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme)).map(|(_, known)| *known)
}

/// Reads what follows `scheme://`.
fn of_url(scheme: GitScheme, rest: &str) -> Option<Parts<'_>> {
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    // What is no URL at all is none of a repository either.
    query::decode(path, false)?;
    if host.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '\\' | '^' | '|')) {
        return None;
    }
    let fragment = query::decode(fragment, false)?;
    // To ssh a user name is no secret, and belongs to the address.
    let (name, credentials) = match (scheme, user) {
        (_, None) => (String::new(), None),
        (GitScheme::Ssh, Some(user)) if !user.contains(':') => (format!("{user}@"), None),
        (_, Some(user)) => (String::new(), Some(credentials(user)?)),
    };
    let remote = format!("{}://{name}{host}{path}", scheme.name());
    Some(Parts { scheme, remote, credentials, query, fragment, looks_like_path: false })
}

/// A URL of the web, or a file, is one of a repository only if its path says so.
fn is_repository(parts: &Parts<'_>) -> bool {
    match parts.scheme {
        GitScheme::Git | GitScheme::Ssh => true,
        GitScheme::Http | GitScheme::Https | GitScheme::File => {
            let path = parts.remote.splitn(4, '/').nth(3).unwrap_or_default();
            query::decode(path, false).is_some_and(|path| path.ends_with(".git"))
        }
    }
}

/// Reads `[user@]host:path`, which must not be a URL.
fn of_scp(text: &str) -> Option<Parts<'_>> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (before, path) = rest.split_once(':')?;
    let (user, host) = match before.split_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, before),
    };
    let word = |extra: char| move |c: char| c.is_ascii_alphanumeric() || c == '-' || c == extra;
    if user.is_some_and(|user| user.is_empty() || !user.chars().all(word('_'))) {
        return None;
    }
    if host.is_empty() || !host.chars().all(word('.')) {
        return None;
    }
    // `name:/path` is a URL with a scheme, if an unknown one; `1name:/path` is not.
    let is_scheme = user.is_none() && host.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_scheme && (path.is_empty() || path.starts_with('/')) {
        return None;
    }
    let remote = rest.to_owned();
    let fragment = fragment.to_owned();
    let scheme = GitScheme::Ssh;
    Some(Parts { scheme, remote, credentials: None, query, fragment, looks_like_path: false })
}

fn credentials(user: &str) -> Option<GitCredentials> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let user = query::decode(user, false)?;
    let password = query::decode(password, false)?;
    Some(GitCredentials { user, password })
}

/// Refuses what would be an option to `ssh`, and what names no host.
/// <https://github.com/git/git/security/advisories/GHSA-4r85-r7f8-6q8m> and CVE-2017-1000117.
fn safe(parts: &Parts<'_>) -> Result<(), String> {
    let rest = parts.remote.split_once("://").map_or(parts.remote.as_str(), |(_, rest)| rest);
    let authority = match parts.remote.contains("://") {
        true => rest.split('/').next().unwrap_or_default(),
        false => rest.split(':').next().unwrap_or_default(),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let takes_credentials = matches!(parts.scheme, GitScheme::Http | GitScheme::Https);
    match parts.scheme {
        _ if parts.credentials.is_some() && !takes_credentials => {
            Err(format!("{} takes no password from a URL", parts.scheme.name()))
        }
        GitScheme::File if !matches!(host, "" | "localhost") => {
            Err("file:// names a directory of this machine: write three slashes before it".to_owned())
        }
        GitScheme::File => Ok(()),
        _ if host.is_empty() => Err("it names no host".to_owned()),
        _ if host.starts_with('-') || authority.starts_with('-') => {
            Err("a host or user that begins with `-` could be taken for an option".to_owned())
        }
        GitScheme::Ssh if rest[authority.len()..].trim_start_matches([':', '/']).is_empty() => {
            Err("it names no repository on the host".to_owned())
        }
        _ => Ok(()),
    }
}

impl GitScheme {
    /// Returns it as it is written before `://`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Git => "git",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}
