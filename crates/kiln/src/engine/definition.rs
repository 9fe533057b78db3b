//! The Dockerfile: where it is read from and how messages call it.

use std::path::{Path, PathBuf};

use kiln_core::IoError;
use kiln_dockerfile::{Diagnostic, Dockerfile, Position, Severity};

use crate::{DockerfileSource, Error};

/// A Dockerfile's text and how messages call it.
pub(crate) struct Definition {
    pub(crate) file: String,
    pub(crate) text: String,
}

impl Definition {
    /// Reads it.
    pub(crate) fn read(source: &DockerfileSource) -> Result<Self, Error> {
        match source {
            DockerfileSource::Text(text) => Ok(Self { file: "Dockerfile".to_owned(), text: text.clone() }),
            DockerfileSource::Path(path) => {
                let bytes = std::fs::read(path).map_err(|error| not_read(path, &error))?;
                let text = String::from_utf8(bytes).map_err(|_| Error::NotUtf8 { path: path.clone() })?;
                Ok(Self { file: path.display().to_string(), text })
            }
        }
    }

    /// Parses it.
    pub(crate) fn parse(&self) -> Result<Dockerfile, Error> {
        let (file, diagnostics) = kiln_dockerfile::parse(&self.text);
        if diagnostics.iter().any(|d| d.severity == Severity::Error) {
            return Err(self.refused(diagnostics));
        }
        Ok(file)
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
        }
    }

    /// Returns the first and last line that a diagnostic speaks of.
    pub(crate) fn lines(&self, diagnostic: &Diagnostic) -> (usize, usize) {
        let line = |offset| Position::of(&self.text, offset).line;
        (line(diagnostic.span.start), line(diagnostic.span.end))
    }
}

/// Returns what the progress display calls a Dockerfile.
pub(crate) fn title(source: &DockerfileSource) -> String {
    let name = match source {
        DockerfileSource::Path(path) => path
            .file_name()
            .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned()),
        DockerfileSource::Text(_) => "standard input".to_owned(),
    };
    format!("[internal] load build definition from {name}")
}

fn not_read(path: &Path, error: &std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::NotFound {
        return IoError::new("read", path, error).into();
    }
    // People call it all sorts of things: say what is there.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut nearby: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| looks_like_one(&path.file_name().unwrap_or_default().to_string_lossy()))
        .collect();
    nearby.sort();
    Error::NoDockerfile { path: path.to_owned(), nearby }
}

/// `Containerfile`, `app.Dockerfile`, `dockerfile`, `Dockerfile.dev`; not `Makefile`.
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
