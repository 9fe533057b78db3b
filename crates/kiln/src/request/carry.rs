//! Where cache mounts are exported to and imported from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use kiln_carry::Strategy;
use kiln_core::ImageRef;
use serde::{Deserialize, Serialize};

use super::place::{ImagePlace, PlaceError};

/// A place for exports of cache mounts, written as a place for images is: `docker://REF` or `HOST/REF`, `oci:DIRECTORY[:TAG]`,
/// `oci-archive:FILE[:TAG]`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CarryPlace {
    /// A name in a registry: a generation at a time is added to it.
    Registry(ImageRef),
    /// A layout directory: the same there.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The name in it.
        tag: String,
    },
    /// A tar of a layout: always one generation, made anew.
    Archive {
        /// The file; none is standard input or output.
        path: Option<PathBuf>,
        /// The name in it.
        tag: String,
    },
}

/// The name that a place without a tag has.
const TAG: &str = "cache";

impl FromStr for CarryPlace {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let fail = |reason: String| PlaceError { text: text.to_owned(), reason, caches: true };
        if text == "-" {
            return Ok(Self::Archive { path: None, tag: TAG.to_owned() });
        }
        if text.starts_with(['/', '.', '~']) {
            return Err(fail(format!("write oci:{text} for a directory, oci-archive:{text} for a file")));
        }
        let tag = |tag: Option<String>| tag.unwrap_or_else(|| TAG.to_owned());
        let place = text.parse().map_err(|error: PlaceError| fail(error.reason))?;
        match place {
            ImagePlace::Registry(name) => Self::registry(name).map_err(fail),
            ImagePlace::Layout { path, tag: given } => Ok(Self::Directory { path, tag: tag(given) }),
            ImagePlace::OciArchive { path, tag: given } => Ok(Self::Archive { path, tag: tag(given) }),
            // A name with a host can be meant in one way only.
            ImagePlace::Store(name) if has_host(text) => Self::registry(name).map_err(fail),
            ImagePlace::Store(_) => Err(fail(format!(
                "write docker://{text} for a registry, oci:{text} for a directory, oci-archive:{text} for a file"
            ))),
            ImagePlace::DockerArchive { .. } | ImagePlace::Engine(_) => {
                Err(fail("cache mounts go to docker://, oci:, oci-archive: and -".to_owned()))
            }
        }
    }
}

fn has_host(text: &str) -> bool {
    let first = text.split_once('/').map(|(first, _)| first);
    first.is_some_and(|first| first == "localhost" || first.contains(['.', ':']))
}

impl CarryPlace {
    fn registry(name: ImageRef) -> Result<Self, String> {
        match name.digest {
            Some(_) => Err("a name with a digest is one generation for ever: write a tag".to_owned()),
            None => Ok(Self::Registry(name)),
        }
    }
}

impl fmt::Display for CarryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = |tag: &String| if tag == TAG { String::new() } else { format!(":{tag}") };
        match self {
            Self::Registry(name) => write!(f, "docker://{name}"),
            Self::Directory { path, tag } => write!(f, "oci:{}{}", path.display(), tail(tag)),
            Self::Archive { path: None, .. } => f.write_str("-"),
            Self::Archive { path: Some(path), tag } => {
                write!(f, "oci-archive:{}{}", path.display(), tail(tag))
            }
        }
    }
}

/// One `--cache-mounts-from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrySource {
    /// From where.
    pub place: CarryPlace,
    /// Only caches of these ids; all, if none is given.
    pub ids: Vec<String>,
    /// What counts where several writers made a generation each.
    pub strategy: Strategy,
}

/// One `--cache-mounts-to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryTarget {
    /// Where to.
    pub place: CarryPlace,
    /// Only caches of these ids; all, if none is given.
    pub ids: Vec<String>,
    /// What goes there.
    pub limits: CarryLimits,
}

/// What of a cache is exported, and what stays of earlier exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryLimits {
    /// Bytes of files, uncompressed: the least recently used stay behind.
    pub max_size: Option<u64>,
    /// Seconds: what was neither written nor read for so long stays behind.
    pub max_age: Option<u64>,
    /// Generations that stay in a registry or directory.
    pub keep: usize,
    /// zstd's, 1 to 19.
    pub level: i32,
}

impl Default for CarryLimits {
    fn default() -> Self {
        Self { max_size: None, max_age: None, keep: 4, level: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_those_of_images() {
        let name = |text: &str| text.parse::<ImageRef>().unwrap();
        let tag = || "cache".to_owned();
        for (text, place) in [
            ("-", CarryPlace::Archive { path: None, tag: tag() }),
            ("oci-archive:-", CarryPlace::Archive { path: None, tag: tag() }),
            ("oci-archive:a.tar", CarryPlace::Archive { path: Some("a.tar".into()), tag: tag() }),
            ("oci:a:main", CarryPlace::Directory { path: "a".into(), tag: "main".into() }),
            ("docker://127.0.0.1:5/a:b", CarryPlace::Registry(name("127.0.0.1:5/a:b"))),
            ("127.0.0.1:5/a:b", CarryPlace::Registry(name("127.0.0.1:5/a:b"))),
            ("localhost/a", CarryPlace::Registry(name("localhost/a"))),
        ] {
            assert_eq!(text.parse::<CarryPlace>().as_ref(), Ok(&place), "{text}");
            assert_eq!(place.to_string().parse::<CarryPlace>(), Ok(place), "{text}");
        }
        for text in ["a", "a/b:c", "./a", "/a", "docker-archive:a", "docker-daemon:a", "oci:", ""] {
            let error = text.parse::<CarryPlace>().unwrap_err();
            assert_eq!(error.text, text);
            assert!(error.to_string().contains("is no place for cache mounts: "), "{error}");
        }
        let digest = format!("docker://a.example/b@sha256:{}", "0".repeat(64));
        assert!(digest.parse::<CarryPlace>().is_err());
    }
}
