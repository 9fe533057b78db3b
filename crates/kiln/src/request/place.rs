//! Where images are: registries, layouts, archives, engines, and kiln's own image store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use kiln_core::{ImageRef, Platform};
use serde::{Deserialize, Serialize};

/// A place that an image can be read from or written to. As text it is what skopeo takes
/// (<https://github.com/containers/image/blob/main/docs/containers-transports.5.md>); a name without a transport is one of
/// the local image store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImagePlace {
    /// The local image store.
    Store(ImageRef),
    /// `docker://REF`: a registry.
    Registry(ImageRef),
    /// `oci:DIRECTORY[:TAG]`: an OCI layout.
    Layout {
        /// Its directory.
        path: PathBuf,
        /// Which image of it.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: a tar of an OCI layout.
    OciArchive {
        /// The file; none is standard input or output (`-`).
        path: Option<PathBuf>,
        /// Which image of it.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive {
        /// The file; none is standard input or output (`-`).
        path: Option<PathBuf>,
        /// Which image of it.
        name: Option<ImageRef>,
    },
    /// `docker-daemon:REF`: a running docker or podman, over its socket.
    Engine(ImageRef),
}

/// Why a text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text:?} is no place for {}: {reason}", if *.caches { "cache mounts" } else { "an image" })]
pub struct PlaceError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
    /// Cache mounts should go there, or come from there.
    pub caches: bool,
}

/// Which images of an index are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platforms {
    /// This machine's; an image that has no index is taken whatever it is for.
    #[default]
    Host,
    /// This one.
    One(Platform),
    /// The whole index, with attestations and all else that is in it.
    All,
}

/// Transports that others have and kiln has not, and what to do instead.
const FOREIGN: [(&str, &str); 5] = [
    ("dir", "write oci:DIRECTORY, which says what is in it"),
    ("containers-storage", "`podman save` and `podman load` go between podman's store and a file"),
    ("containerd", "`ctr images export` and `ctr images import` go between containerd and a file"),
    ("ostree", "write oci:DIRECTORY"),
    ("sif", "write oci-archive:FILE"),
];

impl FromStr for ImagePlace {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let fail = |reason: String| PlaceError { text: text.to_owned(), reason, caches: false };
        let name = |name: &str| name.parse::<ImageRef>().map_err(|error| fail(error.to_string()));
        let Some((transport, rest)) = text.split_once(':') else { return Ok(Self::Store(name(text)?)) };
        match transport {
            "docker" if rest.starts_with("//") => return Ok(Self::Registry(name(&rest[2..])?.in_full())),
            "docker-daemon" => return Ok(Self::Engine(name(rest)?.in_full())),
            "oci" | "oci-archive" | "docker-archive" => {}
            other => {
                if let Some((_, instead)) = FOREIGN.iter().find(|(foreign, _)| *foreign == other)
                    && (rest.contains('/') || other.contains('-'))
                {
                    return Err(fail(format!("kiln has no transport {other}; {instead}")));
                }
                if rest.starts_with("//") {
                    return Err(fail(format!(
                        "kiln has no transport {other}; there are docker://, oci:, oci-archive:, docker-archive: and \
                         docker-daemon:"
                    )));
                }
                return Ok(Self::Store(name(text)?));
            }
        }
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag).filter(|tag| !tag.is_empty())),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(fail(format!("write {transport}:PATH")));
        }
        let file = (path != "-").then(|| PathBuf::from(path));
        let tag_text = tag.map(str::to_owned);
        Ok(match transport {
            "oci" => Self::Layout { path: path.into(), tag: tag_text },
            "oci-archive" => Self::OciArchive { path: file, tag: tag_text },
            _ => Self::DockerArchive { path: file, name: tag.map(name).transpose()? },
        })
    }
}

impl fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string())
        };
        let tail = |tag: Option<String>| tag.map_or_else(String::new, |tag| format!(":{tag}"));
        match self {
            Self::Store(name) => f.write_str(&name.familiar()),
            Self::Registry(name) => write!(f, "docker://{name}"),
            Self::Layout { path, tag } => write!(f, "oci:{}{}", path.display(), tail(tag.clone())),
            Self::OciArchive { path, tag } => write!(f, "oci-archive:{}{}", file(path), tail(tag.clone())),
            Self::DockerArchive { path, name } => {
                write!(f, "docker-archive:{}{}", file(path), tail(name.as_ref().map(ImageRef::familiar)))
            }
            Self::Engine(name) => write!(f, "docker-daemon:{}", name.familiar()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_as_skopeo_writes_them() {
        let name = |text: &str| text.parse::<ImageRef>().unwrap();
        let rows = [
            ("demo", ImagePlace::Store(name("demo"))),
            ("127.0.0.1:5000/demo:1", ImagePlace::Store(name("127.0.0.1:5000/demo:1"))),
            ("dir:1", ImagePlace::Store(name("dir:1"))),
            ("docker://127.0.0.1:5000/demo:1", ImagePlace::Registry(name("127.0.0.1:5000/demo:1"))),
            ("oci:a/b", ImagePlace::Layout { path: "a/b".into(), tag: None }),
            ("oci:a:1", ImagePlace::Layout { path: "a".into(), tag: Some("1".to_owned()) }),
            (
                "oci:a:127.0.0.1:5000/b:1",
                ImagePlace::Layout { path: "a".into(), tag: Some("127.0.0.1:5000/b:1".to_owned()) },
            ),
            ("oci-archive:-", ImagePlace::OciArchive { path: None, tag: None }),
            (
                "docker-archive:a.tar:demo:1",
                ImagePlace::DockerArchive { path: Some("a.tar".into()), name: Some(name("demo:1")) },
            ),
            ("docker-daemon:demo:1", ImagePlace::Engine(name("demo:1"))),
        ];
        for (text, place) in rows {
            assert_eq!(text.parse::<ImagePlace>().as_ref(), Ok(&place), "{text}");
            assert_eq!(place.to_string().parse::<ImagePlace>(), Ok(place), "{text}");
        }
        for text in [
            "dir:/a",
            "containers-storage:a",
            "ostree:a/b",
            "oci:",
            "ftp://a",
            "docker://A",
            "",
            "oci-archive::x",
        ] {
            assert!(text.parse::<ImagePlace>().is_err(), "{text}");
        }
    }
}
