//! Brings a context's files to this machine, and says so.

use std::io::Read as _;

use kiln_core::IoResultExt as _;
use kiln_store::Store;

use super::definition::{self, Definition};
use super::files::Files;
use super::reporter::Reporter;
use crate::{ContextSource, DockerfileSource, Error};

/// What fetching needs.
#[derive(Clone, Copy)]
pub(crate) struct Fetch<'a> {
    pub(crate) store: &'a Store,
    pub(crate) reporter: &'a Reporter<'a>,
}

impl Fetch<'_> {
    /// Brings the main context.
    pub(crate) fn main(&self, source: &ContextSource) -> Result<Files, Error> {
        self.shown("[internal] load build context from", source)
    }

    /// Brings a named context.
    pub(crate) fn named(&self, name: &str, source: &ContextSource) -> Result<Files, Error> {
        self.shown(&format!("[context {name}] load"), source)
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

    /// A directory is there already: nothing happens that could be shown.
    fn shown(&self, what: &str, source: &ContextSource) -> Result<Files, Error> {
        if let ContextSource::Directory(path) = source {
            return Files::directory(path);
        }
        let task = self.reporter.task(&format!("{what} {source}"));
        let files = self.files(source);
        task.end_with(&files);
        files
    }

    fn files(&self, source: &ContextSource) -> Result<Files, Error> {
        match source {
            ContextSource::Directory(path) => Files::directory(path),
            ContextSource::Empty => Files::empty(self.store, None),
            ContextSource::Stdin => {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).at("read", "standard input")?;
                let text = String::from_utf8(bytes)
                    .map_err(|_| Error::NotUtf8 { path: source.to_string().into() })?;
                Files::empty(self.store, Some(text))
            }
        }
    }
}
