//! The Dockerfile: where it is read from and how messages call it.

use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _};
use kiln_dockerfile::{Diagnostic, Dockerfile, Position, Severity};

use super::files::{Files, FilesKind};
use crate::{ContextSource, DockerfileSource, Error};

/// What a Dockerfile is called where nobody says so: docker's name, the one that docker takes too
/// (<https://github.com/moby/moby/pull/10858>), and podman's.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile's text and how messages call it.
pub(crate) struct Definition {
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// Where a Dockerfile is, and so what is beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// No file.
    Nowhere,
    /// On this machine.
    Here(PathBuf),
    /// In a context that is no directory of this machine.
    Inside(PathBuf),
}

impl Definition {
    /// Reads it.
    pub(crate) fn read(
        source: &DockerfileSource,
        context: &ContextSource,
        files: &Files,
    ) -> Result<Self, Error> {
        if let FilesKind::Empty { dockerfile: Some(text), .. } = &files.kind {
            return match source {
                DockerfileSource::Default => Ok(Self::from_text(text)),
                _ => Err(Error::TwoDockerfiles { context: context.to_string() }),
            };
        }
        if let DockerfileSource::Text(text) = source {
            return Ok(Self::from_text(text));
        }
        if let (FilesKind::Remote { dockerfile: Some(_), .. }, DockerfileSource::InContext(_)) =
            (&files.kind, source)
        {
            return Err(Error::TwoDockerfiles { context: context.to_string() });
        }
        let places = places(source, context, files);
        for place in &places {
            let (bytes, path) = match place {
                Place::Nowhere => continue,
                Place::Here(path) => (read_here(path)?, path),
                Place::Inside(path) => (files.read(path)?, path),
            };
            if let Some(bytes) = bytes {
                let text = String::from_utf8(bytes).map_err(|_| Error::NotUtf8 { path: path.clone() })?;
                return Ok(Self { file: path.display().to_string(), text, place: place.clone() });
            }
        }
        Err(not_there(&places[0], context, files))
    }

    fn from_text(text: &str) -> Self {
        Self { file: "Dockerfile".to_owned(), text: text.to_owned(), place: Place::Nowhere }
    }

    /// Parses it; what it may be warned of comes along.
    pub(crate) fn parse(&self) -> Result<(Dockerfile, Vec<Diagnostic>), Error> {
        let (file, diagnostics) = kiln_dockerfile::parse(&self.text);
        if diagnostics.iter().any(|d| d.severity == Severity::Error) {
            return Err(self.refused(diagnostics));
        }
        Ok((file, diagnostics))
    }

    /// Says that it cannot be built.
    pub(crate) fn refused(&self, diagnostics: Vec<Diagnostic>) -> Error {
        Error::Dockerfile { file: self.file.clone(), text: self.text.clone(), diagnostics }
    }

    /// Says where an image that cannot be had is asked for, if a FROM line names it as it stands.
    pub(crate) fn at_image(&self, file: &Dockerfile, image: &str, error: Error) -> Error {
        let from = file.stages.iter().map(|stage| &stage.from.value.image).find(|from| from.value == image);
        let Some(from) = from else { return error };
        let line = Position::of(&self.text, from.span.start).line;
        Error::Step {
            file: self.file.clone(),
            text: self.text.clone(),
            title: format!("FROM {image}"),
            lines: Some((line, line)),
            error: Box::new(error),
            kept: None,
        }
    }

    /// Returns the first and last line that a diagnostic speaks of.
    pub(crate) fn lines(&self, diagnostic: &Diagnostic) -> (usize, usize) {
        let line = |offset| Position::of(&self.text, offset).line;
        (line(diagnostic.span.start), line(diagnostic.span.end))
    }
}

/// Returns where a Dockerfile may be; the first that is there counts. Not empty.
pub(crate) fn places(source: &DockerfileSource, context: &ContextSource, files: &Files) -> Vec<Place> {
    let inside = |path: &Path| match context {
        ContextSource::Directory(dir) => Place::Here(dir.join(path)),
        _ => Place::Inside(path.to_owned()),
    };
    match source {
        DockerfileSource::Default if let FilesKind::Remote { dockerfile: Some(path), .. } = &files.kind => {
            vec![Place::Inside(path.clone())]
        }
        DockerfileSource::Default => NAMES.iter().map(|name| inside(Path::new(name))).collect(),
        DockerfileSource::InContext(path) => vec![inside(path)],
        DockerfileSource::Path(path) => vec![Place::Here(path.clone())],
        DockerfileSource::Text(_) => vec![Place::Nowhere],
    }
}

/// Returns what the progress display calls a Dockerfile.
pub(crate) fn title(source: &DockerfileSource) -> String {
    let name = match source {
        DockerfileSource::Default => NAMES[0].to_owned(),
        DockerfileSource::Path(path) | DockerfileSource::InContext(path) => path
            .file_name()
            .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned()),
        DockerfileSource::Text(_) => "standard input".to_owned(),
    };
    format!("[internal] load build definition from {name}")
}

/// Returns none if there is no such file.
pub(crate) fn read_here(path: &Path) -> Result<Option<Vec<u8>>, IoError> {
    match std::fs::read(path) {
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        read => read.map(Some).at("read", path),
    }
}

/// People call it all sorts of things: says what is there.
fn not_there(place: &Place, context: &ContextSource, files: &Files) -> Error {
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
    let (path, dir, names, inside) = match place {
        Place::Nowhere => (PathBuf::new(), PathBuf::new(), Vec::new(), None),
        Place::Here(path) => {
            let dir = parent(path);
            let start = if dir.as_os_str().is_empty() { Path::new(".") } else { &dir };
            let names =
                std::fs::read_dir(start).into_iter().flatten().flatten().map(|entry| entry.file_name());
            (path.clone(), dir.clone(), names.collect(), None)
        }
        Place::Inside(path) => {
            let dir = parent(path);
            let names = files.names(&dir).unwrap_or_default();
            (path.clone(), dir, names, Some(context.to_string()))
        }
    };
    let mut nearby: Vec<PathBuf> = names
        .iter()
        .filter(|name| looks_like_one(&name.to_string_lossy()))
        .map(|name| dir.join(name))
        .collect();
    nearby.sort();
    Error::NoDockerfile { path, inside, nearby }
}

/// `app.Dockerfile`, `Dockerfile.dev`; not `Makefile`.
fn looks_like_one(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.ends_with(".dockerignore") && ["dockerfile", "containerfile"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::looks_like_one;

    #[test]
    fn names_that_are_worth_a_mention() {
        let rows = [
            ("Containerfile", true),
            ("app.Dockerfile", true),
            ("Dockerfile.dev", true),
            ("DOCKERFILE", true),
            ("Makefile", false),
            ("Dockerfile.dockerignore", false),
            ("file", false),
        ];
        for (name, yes) in rows {
            assert_eq!(looks_like_one(name), yes, "{name}");
        }
    }
}
