//! A Dockerfile and what its context leaves out, for those who look without building.

use std::path::Path;

use kiln_core::{Cancel, EventSink, IgnoreList};

use super::Engine;
use super::definition::Definition;
use super::fetch::Fetch;
use super::files::Files;
use super::ignore_file;
use super::remote::Remotes;
use super::reporter::Reporter;
use crate::{BuildRequest, ContextSource, DockerfileSource, Error};

/// A Dockerfile, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Its name, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
    /// What is left out of its context.
    pub ignore: IgnoreList,
}

impl Engine {
    /// Reads the Dockerfile of a build; a context that is no directory is fetched for it.
    ///
    /// # Errors
    /// The context cannot be had, it has no Dockerfile, or its ignore file cannot be read.
    pub fn recipe(
        &self,
        request: &BuildRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<Recipe, Error> {
        // What is fetched stays as long as it is read.
        let _pin = self.store.pin()?;
        let reporter = Reporter::new(events);
        let remotes = Remotes::new(&self.store, request, &reporter);
        let fetch = Fetch { store: &self.store, reporter: &reporter, remotes: &remotes, cancel };
        let files = fetch.main(request)?;
        Recipe::read(&request.context, &request.dockerfile, &files)
    }
}

impl Recipe {
    /// Reads the Dockerfile of a directory. Needs no engine.
    ///
    /// # Errors
    /// There is no such directory or no Dockerfile, or the ignore file cannot be read.
    pub fn of_directory(dir: &Path, dockerfile: &DockerfileSource) -> Result<Self, Error> {
        Self::read(&ContextSource::Directory(dir.to_owned()), dockerfile, &Files::directory(dir)?)
    }

    fn read(context: &ContextSource, dockerfile: &DockerfileSource, files: &Files) -> Result<Self, Error> {
        let Definition { file, text, place } = Definition::read(dockerfile, context, files)?;
        let ignore = ignore_file::find(&place, files)?.map(|ignore| ignore.list).unwrap_or_default();
        Ok(Self { file, text, ignore })
    }
}
