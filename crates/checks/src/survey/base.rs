//! What is known of a base image: its configuration if somebody resolved it, else what everybody knows of the official
//! images.

use std::collections::HashMap;

use kiln_core::{ImageConfig, ImageRef};
use kiln_frontend::ImageTable;

/// A base image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    /// `debian`, `golang`; `library/` and registry left out, empty for scratch.
    pub(crate) name: String,
    /// Its tag.
    pub(crate) tag: String,
    /// `name=value`.
    pub(crate) env: Vec<(String, String)>,
    /// Its USER; none if that is not known.
    pub(crate) user: Option<String>,
    /// Its WORKDIR; none if that is not known.
    pub(crate) dir: Option<String>,
    /// Whether variables that are not in `env` are certainly unset.
    pub(crate) closed: bool,
    /// Whether it is one of the official images.
    pub(crate) official: bool,
    /// Its CMD and ENTRYPOINT.
    pub(crate) command: Vec<String>,
}

/// Official images that set variables which say where caches are, and PATH where that matters.
/// <https://github.com/docker-library/official-images>
const OFFICIAL_ENV: &[(&str, &[(&str, &str)])] = &[
    (
        "golang",
        &[
            ("GOPATH", "/go"),
            (
                "PATH",
                "/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
        ],
    ),
    (
        "rust",
        &[
            ("CARGO_HOME", "/usr/local/cargo"),
            ("RUSTUP_HOME", "/usr/local/rustup"),
            ("PATH", "/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ],
    ),
    (
        "ruby",
        &[
            ("GEM_HOME", "/usr/local/bundle"),
            ("BUNDLE_APP_CONFIG", "/usr/local/bundle"),
            ("PATH", "/usr/local/bundle/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ],
    ),
    ("composer", &[("COMPOSER_HOME", "/tmp")]),
    ("maven", &[("MAVEN_CONFIG", "/root/.m2")]),
];

/// Images that are not official but run as root and set no variable that says where a cache is.
const PLAIN: [&str; 8] = [
    "dotnet/sdk",
    "dotnet/aspnet",
    "dotnet/runtime",
    "oven/bun",
    "astral-sh/uv",
    "nvidia/cuda",
    "centos/centos",
    "fedora",
];

/// Users that images bring along: image, user, uid, home.
const USERS: &[(&str, &str, u32, &str)] =
    &[("node", "node", 1000, "/home/node"), ("oven/bun", "bun", 1000, "/home/bun")];

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What was resolved, by the name that the Dockerfile uses.
pub(crate) struct Images<'a>(HashMap<&'a str, &'a ImageConfig>);

impl<'a> Images<'a> {
    /// Of several platforms one is enough: what matters here is the same for all.
    pub(crate) fn new(table: &'a ImageTable) -> Self {
        Self(table.iter().map(|(request, image)| (request.name.as_str(), &image.config)).collect())
    }

    /// Returns what is known of an image.
    pub(crate) fn base(&self, written: &str) -> Base {
        if written == "scratch" {
            return Base {
                env: vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())],
                user: Some(String::new()),
                dir: Some("/".to_owned()),
                closed: true,
                ..Base::default()
            };
        }
        let named = named(written);
        match self.0.get(written) {
            Some(config) => Base {
                env: pairs(&config.config.env),
                user: Some(config.config.user.clone()),
                dir: Some(match config.config.working_dir.as_str() {
                    "" => "/".to_owned(),
                    dir => dir.to_owned(),
                }),
                // a configuration without PATH was made up by somebody who asked no registry
                closed: config.config.env.iter().any(|line| line.starts_with("PATH=")) || named.closed,
                command: [&config.config.entrypoint, &config.config.cmd]
                    .into_iter()
                    .flatten()
                    .flatten()
                    .cloned()
                    .collect(),
                ..named
            }
            .with_defaults(),
            None => named.with_defaults(),
        }
    }
}

impl Base {
    /// What everybody knows comes after what the image says.
    fn with_defaults(mut self) -> Self {
        let known = OFFICIAL_ENV.iter().find(|(name, _)| self.official && *name == self.name);
        let known = known.map_or(&[][..], |(_, pairs)| pairs);
        for (name, value) in known.iter().chain(&[("PATH", DEFAULT_PATH)]) {
            if !self.env.iter().any(|(set, _)| set == name) && self.closed {
                self.env.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        self
    }

    /// Returns uid and home of a user that the image brings along.
    pub(crate) fn user_named(&self, user: &str) -> Option<(u32, &'static str)> {
        let found = USERS.iter().find(|(image, name, ..)| *image == self.name && *name == user);
        found.map(|(_, _, uid, home)| (*uid, *home))
    }
}

fn named(written: &str) -> Base {
    let Ok(image) = written.parse::<ImageRef>() else { return Base::default() };
    let tag = image.tag.clone().unwrap_or_default();
    // mirrors keep `library/` in the path
    let official = image
        .repository
        .rsplit_once("library/")
        .filter(|(before, _)| before.is_empty() || before.ends_with('/'));
    if let Some((_, name)) = official {
        return Base {
            name: name.to_owned(),
            tag,
            official: true,
            user: Some(String::new()),
            closed: true,
            ..Base::default()
        };
    }
    let plain = PLAIN.into_iter().find(|plain| {
        let rest = image.repository.strip_suffix(plain);
        rest.is_some_and(|before| before.is_empty() || before.ends_with('/'))
    });
    match plain {
        Some(name) => {
            Base { name: name.to_owned(), tag, user: Some(String::new()), closed: true, ..Base::default() }
        }
        None => Base { name: image.repository, tag, ..Base::default() },
    }
}

fn pairs(lines: &[String]) -> Vec<(String, String)> {
    let split = |line: &String| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.to_owned(), value.to_owned())
    };
    lines.iter().map(split).collect()
}
