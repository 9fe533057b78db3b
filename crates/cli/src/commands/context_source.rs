//! What a build context on the command line means.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln::{BuildRequest, ContextSource, DockerfileSource, NamedSource};
use kiln_core::GitUrl;

use super::secret_flag;
use crate::args::{Global, RegistryArgs};
use crate::config;
use crate::hints::Failure;

/// Reads `CONTEXT` and `--file`.
pub(super) fn main(
    context: &Path,
    file: Option<&Path>,
) -> Result<(ContextSource, DockerfileSource), Failure> {
    let stdin = Path::new("-");
    if context == stdin && file == Some(stdin) {
        return Err(Failure::usage(
            "standard input cannot be both the context and the Dockerfile: name one of them by its path",
        ));
    }
    let source = if context == stdin {
        ContextSource::Stdin
    } else {
        files(&context.to_string_lossy()).map_err(Failure::usage)?
    };
    let dockerfile = match file {
        None => DockerfileSource::Default,
        Some(file) if file == stdin => DockerfileSource::Text(read_stdin()?),
        // As docker: of a directory the path is one of this machine, of everything else one inside.
        Some(file) if file.is_absolute() || matches!(source, ContextSource::Directory(_)) => {
            DockerfileSource::Path(file.to_owned())
        }
        Some(file) => DockerfileSource::InContext(file.to_owned()),
    };
    Ok((source, dockerfile))
}

/// Asks for a context and its Dockerfile, and for nothing to be built.
pub(super) fn only(
    global: &Global,
    (context, dockerfile): (ContextSource, DockerfileSource),
    secrets: &[String],
    registry: &RegistryArgs,
) -> Result<BuildRequest, Failure> {
    let mut request = BuildRequest::new(config::store_root(global.root.clone())?, "");
    request.context = context;
    request.dockerfile = dockerfile;
    request.secrets = secret_flag::read(secrets)?;
    request.registry = config::registry(registry)?;
    Ok(request)
}

/// Reads `--build-context`.
pub(super) fn named(text: &str) -> Result<(String, NamedSource), Failure> {
    let bad = |reason: &str| Failure::usage(format!("--build-context {text}: {reason}"));
    let (name, source) =
        text.split_once('=').filter(|(n, s)| !n.is_empty() && !s.is_empty()).ok_or_else(|| {
            bad("write NAME=SOURCE, where SOURCE is a directory, a tar, a URL, oci-layout://PATH or docker-image://REF")
        })?;
    let source = if let Some(image) = source.strip_prefix("docker-image://") {
        match image {
            "scratch" => NamedSource::Files(ContextSource::Empty),
            image => {
                NamedSource::Image(image.parse::<kiln::ImageRef>().map_err(Failure::from_usage)?.in_full())
            }
        }
    } else if let Some(layout) = source.strip_prefix("oci-layout://") {
        let (path, digest) = match layout.split_once('@') {
            Some((path, digest)) => (path, Some(digest.parse().map_err(Failure::from_usage)?)),
            None => (layout, None),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (path, None),
        };
        NamedSource::OciLayout { path: PathBuf::from(path), tag, digest }
    } else if source == "-" {
        return Err(bad("only the main context can come on standard input"));
    } else if source.starts_with("target:") {
        return Err(bad(
            "`target:` names a target of a bake file; in a Dockerfile stages are named by FROM ... AS",
        ));
    } else {
        NamedSource::Files(files(source).map_err(|reason| bad(&reason))?)
    };
    Ok((name.to_owned(), source))
}

/// Reads what stands for files, in the order that docker looks: a directory is one whatever its name resembles.
fn files(text: &str) -> Result<ContextSource, String> {
    let path = Path::new(text);
    if path.is_dir() {
        return Ok(ContextSource::Directory(path.to_owned()));
    }
    if let Some(url) = GitUrl::parse(text) {
        url.map_err(|error| error.to_string())?;
        return Ok(ContextSource::Git(text.to_owned()));
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(ContextSource::Http(text.to_owned()));
    }
    if text.contains("://") {
        return Err(format!("{text}: a context is a directory, a tar, an http URL or a git URL"));
    }
    if path.exists() {
        return Ok(ContextSource::Archive(path.to_owned()));
    }
    Err(format!("build context {text} does not exist"))
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Failure::usage(format!("cannot read the Dockerfile from standard input: {error}"))
    })?;
    Ok(text)
}
