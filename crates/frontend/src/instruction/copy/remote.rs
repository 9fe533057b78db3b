//! Sources of ADD that are fetched: files behind URLs and git repositories.

use kiln_core::{Digest, GitOp, GitScheme, GitUrl, HttpOp, Op, Selection, StepId, StepInfo};
use kiln_dockerfile::{Diagnostic, Span, Spanned};

use super::words::Words;
use crate::diagnose::{error, with_help};
use crate::lowering::Lowering;
use crate::path;
use crate::place::Place;

/// What the program calls a file whose URL has no name for it.
const UNNAMED: &str = "__unnamed__";

/// A source that is fetched.
pub(super) enum Remote {
    Http(HttpOp),
    Git(GitOp),
}

/// Says what kind of remote source a text is.
pub(super) fn name(text: &str) -> &'static str {
    if git(text).is_some() { "git repository" } else { "URL" }
}

impl Remote {
    /// Reads a source; none if it is a path.
    pub(super) fn of(text: &str, words: &Words<'_>, span: Span) -> Result<Option<Self>, Diagnostic> {
        let remote = match git(text) {
            Some(Ok(url)) => Self::Git(git_op(&url, words, span)?),
            Some(Err(problem)) => return Err(error(span, problem)),
            None if is_http(text) => Self::Http(http_op(text, words, span)?),
            None => {
                return match &words.checksum {
                    None => Ok(None),
                    Some(checksum) => Err(error(
                        checksum.span,
                        "`--checksum` is for URLs and git repositories: files of the context are known as they are",
                    )),
                };
            }
        };
        Ok(Some(remote))
    }

    /// Adds the step that stands for it, and says what is copied out of it.
    pub(super) fn add(self, at: &Place<'_>, lowering: &mut Lowering<'_>) -> (StepId, Selection) {
        let (op, title, selection) = match self {
            Self::Http(op) => {
                let (title, selection) = (op.url.clone(), Selection::literal(op.name.clone()));
                (Op::Http(op), title, selection)
            }
            Self::Git(op) => {
                let reference = op.reference.iter().map(|reference| format!("#{reference}"));
                let title = std::iter::once(op.remote.clone()).chain(reference).collect();
                (Op::Git(op), title, Selection::all())
            }
        };
        let info = StepInfo { title, lines: Some(at.lines), ..StepInfo::default() };
        (lowering.graph.add(op, info), selection)
    }
}

/// `github.com/a/b` may be a directory, and is one in a Dockerfile.
fn git(text: &str) -> Option<Result<GitUrl, String>> {
    match GitUrl::parse(text)? {
        Ok(url) if url.looks_like_path => None,
        Ok(url) => Some(Ok(url)),
        Err(problem) => Some(Err(problem.to_string())),
    }
}

fn git_op(url: &GitUrl, words: &Words<'_>, span: Span) -> Result<GitOp, Diagnostic> {
    if url.credentials.is_some() {
        return Err(holds_credentials(span));
    }
    if url.scheme == GitScheme::File {
        let message =
            "ADD takes no repository of this machine: a Dockerfile must not reach outside of its context";
        let help = "give it with `--build-context NAME=DIRECTORY` and write `COPY --from=NAME`".to_owned();
        return Err(with_help(error(span, message), Some(help)));
    }
    let mut op = url.op();
    if let (Some(flag), Some(own)) = (words.keeps_git_dir(), url.keep_git_dir)
        && flag != own
    {
        return Err(error(span, format!("the URL says keep-git-dir={own} and the flag says {flag}")));
    }
    op.keep_git_dir = words.keeps_git_dir().or(url.keep_git_dir).unwrap_or(false);
    if let Some(Spanned { value, span }) = &words.checksum {
        if url.checksum.as_ref().is_some_and(|own| own != value) {
            let own = url.checksum.as_deref().unwrap_or_default();
            return Err(error(*span, format!("the URL asks for commit {own} and the flag for {value}")));
        }
        if !(7..=64).contains(&value.len()) || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message = format!("`--checksum={value}`: write the commit, or at least 7 digits of it");
            return Err(error(*span, message));
        }
        op.checksum = Some(value.to_ascii_lowercase());
    }
    Ok(op)
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn http_op(url: &str, words: &Words<'_>, span: Span) -> Result<HttpOp, Diagnostic> {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(holds_credentials(span));
    }
    if authority.is_empty() {
        return Err(error(span, format!("`{url}` names no host")));
    }
    let path = rest[authority.len()..].split(['?', '#']).next().unwrap_or_default();
    let name = match file_name(path) {
        Some(name) => name,
        None if path::is_directory(&words.dest) => {
            let message =
                format!("`{url}` has no file name, so nobody knows what it is called in `{}`", words.dest);
            let help = "write the file's name at the end of the destination".to_owned();
            return Err(with_help(error(span, message), Some(help)));
        }
        None => UNNAMED.to_owned(),
    };
    let checksum = match &words.checksum {
        None => None,
        Some(Spanned { value, span }) => Some(value.parse::<Digest>().map_err(|_| {
            error(*span, format!("`--checksum={value}`: write `sha256:` and 64 hexadecimal digits"))
        })?),
    };
    Ok(HttpOp { url: url.to_owned(), name, checksum })
}

/// The last part of a URL's path, decoded; none if it names no file.
fn file_name(path: &str) -> Option<String> {
    let decoded = percent_decoded(path)?;
    let name = decoded.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_name = !matches!(name, "" | "." | "..") && !name.contains('\0');
    is_name.then(|| name.to_owned())
}

/// <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

fn holds_credentials(span: Span) -> Diagnostic {
    let message = "the URL holds credentials: they would end up in the image's history";
    let help =
        "leave them out of the Dockerfile and of its arguments; fetch in a RUN with `--mount=type=secret`";
    with_help(error(span, message), Some(help.to_owned()))
}
