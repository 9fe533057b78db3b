//! Brings a context's files to this machine, and says so.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use kiln_core::{Cancel, GitUrl, GitUrlError, HttpOp, IoResultExt as _, Op};
use kiln_store::{Store, begins_archive};

use super::definition::{self, Definition};
use super::files::Files;
use super::remote::Remotes;
use super::reporter::Reporter;
use crate::{BuildRequest, ContextSource, DockerfileSource, Error};

/// What a single file behind a URL is called in its context, as BuildKit has it.
const FILE: &str = "context";
/// Bytes that tell an archive from a text.
const START: u64 = 512;
/// More than any Dockerfile has.
const MAX_TEXT: u64 = 64 << 20;
/// Keeps `.git` of the main context; the build argument is BuildKit's.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// What fetching needs.
#[derive(Clone, Copy)]
pub(crate) struct Fetch<'a> {
    pub(crate) store: &'a Store,
    pub(crate) reporter: &'a Reporter<'a>,
    pub(crate) remotes: &'a Remotes<'a>,
    pub(crate) cancel: &'a Cancel,
}

impl Fetch<'_> {
    /// Brings the main context.
    pub(crate) fn main(&self, request: &BuildRequest) -> Result<Files, Error> {
        let keep_git_dir = request.build_args.get(KEEP_GIT_DIR).is_some_and(|text| is_true(text));
        self.files(&request.context, "[internal]", keep_git_dir)
    }

    /// Brings a named context.
    pub(crate) fn named(&self, name: &str, source: &ContextSource) -> Result<Files, Error> {
        self.files(source, &format!("[context {name}]"), false)
    }

    /// Reads the Dockerfile.
    pub(crate) fn definition(
        &self,
        dockerfile: &DockerfileSource,
        context: &ContextSource,
        files: &Files,
    ) -> Result<Definition, Error> {
        let task = self.reporter.task(&definition::title(dockerfile));
        let read = Definition::read(dockerfile, context, files);
        task.end_with(&read);
        read
    }

    /// What is there already, or is shown by who fetches it, has no task of its own.
    fn files(&self, source: &ContextSource, whose: &str, keep_git_dir: bool) -> Result<Files, Error> {
        let label = source.to_string();
        let title = format!("{whose} load build context from {label}");
        match source {
            ContextSource::Directory(path) => Files::directory(path),
            ContextSource::Empty => Files::empty(self.store, None),
            ContextSource::Stdin => self.shown(&title, || self.stream(std::io::stdin().lock(), &label)),
            ContextSource::Archive(path) => self.shown(&title, || {
                let mut file = File::open(path).at("open", path)?;
                match start(&mut file).at("read", path)? {
                    start if begins_archive(start.get_ref()) => self.unpack(start.chain(file), &label),
                    _ => Err(Error::NotAnArchive { context: label.clone() }),
                }
            }),
            ContextSource::Http(url) => {
                let op = HttpOp { url: url.clone(), name: FILE.to_owned(), checksum: None };
                let remote = self.remotes.get(&Op::Http(op), self.cancel)?;
                let path = remote.path.join(FILE);
                let mut file = File::open(&path).at("open", &path)?;
                match start(&mut file).at("read", &path)? {
                    start if begins_archive(start.get_ref()) => {
                        self.shown(&title, || self.unpack(start.chain(file), &label))
                    }
                    _ => Files::remote(remote, &label, Some(PathBuf::from(FILE))),
                }
            }
            ContextSource::Git(text) => {
                let url = match GitUrl::parse(text) {
                    Some(url) => url?,
                    None => return Err(Error::NoSuchContext { name: label }),
                };
                if url.credentials.is_some() {
                    // The operation has no place for them: it would ask without.
                    let reason = "a name or password in it is not used; give a secret, GIT_AUTH_TOKEN";
                    return Err(GitUrlError { url: url.to_string(), reason: reason.to_owned() }.into());
                }
                let mut op = url.op();
                op.keep_git_dir |= keep_git_dir;
                Files::remote(self.remotes.get(&Op::Git(op), self.cancel)?, &label, None)
            }
        }
    }

    fn shown(&self, title: &str, load: impl FnOnce() -> Result<Files, Error>) -> Result<Files, Error> {
        let task = self.reporter.task(title);
        let files = load();
        task.end_with(&files);
        files
    }

    /// Takes an archive, or else a Dockerfile that has no files beside it.
    fn stream(&self, mut stream: impl Read, label: &str) -> Result<Files, Error> {
        let start = start(&mut stream).at("read", label)?;
        if begins_archive(start.get_ref()) {
            return self.unpack(start.chain(stream), label);
        }
        let mut bytes = Vec::new();
        start.chain(stream).take(MAX_TEXT + 1).read_to_end(&mut bytes).at("read", label)?;
        let too_long = bytes.len() as u64 > MAX_TEXT;
        let text = String::from_utf8(bytes).ok().filter(|_| !too_long);
        let text = text.ok_or_else(|| Error::NotUtf8 { path: label.into() })?;
        Files::empty(self.store, Some(text))
    }

    fn unpack(&self, reader: impl Read, label: &str) -> Result<Files, Error> {
        Files::unpack(self.store, reader, label, self.cancel)
    }
}

/// Reads what tells an archive from a text; less only at the end.
fn start(reader: &mut impl Read) -> std::io::Result<std::io::Cursor<Vec<u8>>> {
    let mut start = Vec::new();
    reader.take(START).read_to_end(&mut start)?;
    Ok(std::io::Cursor::new(start))
}

/// What Go's strconv.ParseBool takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
