//! The fields of one `--mount`, read and checked.
//! <https://docs.docker.com/reference/dockerfile/#run---mount>

use kiln_core::Sharing;
use kiln_dockerfile::{Diagnostic, MountFlag, Span};

use super::value;
use crate::diagnose::{did_you_mean, error, with_help};

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "locked", "private"];

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// One `--mount`; what was not written is `None`.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) kind: Option<Kind>,
    pub(super) target: Option<String>,
    pub(super) source: Option<String>,
    pub(super) from: Option<String>,
    pub(super) id: Option<String>,
    pub(super) sharing: Option<Sharing>,
    pub(super) read_only: Option<bool>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) required: Option<bool>,
    pub(super) env: Option<String>,
    pub(super) span: Span,
}

impl Options {
    /// Reads the fields; `expand` turns a value into its final text.
    pub(super) fn read(
        flag: &MountFlag,
        mut expand: impl FnMut(&str) -> Result<String, Diagnostic>,
    ) -> Result<Self, Diagnostic> {
        let mut options = Self { span: flag.span, ..Self::default() };
        for (key, value) in &flag.fields {
            let value = match value {
                None => None,
                Some(value) if key == "from" => Some(value.clone()),
                Some(value) => Some(expand(value)?),
            };
            options.field(key, value)?;
        }
        options.check()?;
        Ok(options)
    }

    /// Returns the mount type; `bind` unless written.
    pub(super) fn kind(&self) -> Kind {
        self.kind.unwrap_or(Kind::Bind)
    }

    fn field(&mut self, key: &str, value: Option<String>) -> Result<(), Diagnostic> {
        let span = self.span;
        let Some(value) = value else { return self.bare(key) };
        let bad = |expected: &str| error(span, format!("`{key}={value}`: {expected}"));
        match key {
            "type" => self.kind = Some(kind(&value, span)?),
            "target" | "dst" | "destination" => self.target = Some(value),
            "source" | "src" => self.source = Some(value).filter(|source| !source.is_empty()),
            "from" => self.from = Some(value).filter(|from| !from.is_empty()),
            "id" => self.id = Some(value).filter(|id| !id.is_empty()),
            "sharing" => self.sharing = Some(sharing(&value, span)?),
            "ro" | "readonly" => {
                self.read_only = Some(value::boolean(&value).ok_or_else(|| bad("write true or false"))?);
            }
            "rw" | "readwrite" => {
                self.read_only = Some(!value::boolean(&value).ok_or_else(|| bad("write true or false"))?);
            }
            "mode" => {
                let mode = u32::from_str_radix(&value, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| bad("write octal permission bits, such as 0755"))?);
            }
            "uid" => self.uid = Some(value.parse().map_err(|_| bad("write a number"))?),
            "gid" => self.gid = Some(value.parse().map_err(|_| bad("write a number"))?),
            "size" => {
                let size = value::bytes(&value);
                self.size = Some(size.ok_or_else(|| bad("write a size, such as 512m or 1g"))?);
            }
            "required" => {
                self.required = Some(value::boolean(&value).ok_or_else(|| bad("write true or false"))?);
            }
            "env" if value.is_empty() || value.contains('=') => return Err(bad("write a variable's name")),
            "env" => self.env = Some(value),
            _ => return Err(self.unknown(key)),
        }
        Ok(())
    }

    fn bare(&mut self, key: &str) -> Result<(), Diagnostic> {
        match key {
            "ro" | "readonly" => self.read_only = Some(true),
            "rw" | "readwrite" => self.read_only = Some(false),
            "required" => self.required = Some(true),
            _ => return Err(self.unknown(key)),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Diagnostic> {
        use Kind::{Cache, Secret, Ssh, Tmpfs};
        let owned: &[Kind] = &[Cache, Secret, Ssh];
        let only = [
            ("mode", self.mode.is_some(), owned),
            ("uid", self.uid.is_some(), owned),
            ("gid", self.gid.is_some(), owned),
            ("size", self.size.is_some(), &[Tmpfs]),
            ("sharing", self.sharing.is_some(), &[Cache]),
        ];
        let kind = self.kind();
        if let Some((key, ..)) = only.iter().find(|(_, is, kinds)| *is && !kinds.contains(&kind)) {
            return Err(self.not_for(key));
        }
        if self.required.is_some() && !matches!(kind, Secret | Ssh) {
            return Err(error(self.span, "`required` is only for mounts of type secret and ssh"));
        }
        if self.env.is_some() && kind != Secret {
            return Err(error(self.span, "`env` is only for mounts of type secret"));
        }
        if kind == Secret && self.from.is_some() {
            return Err(self.not_for("from"));
        }
        if kind == Ssh && self.source.is_some() {
            return Err(self.not_for("source"));
        }
        if kind == Secret && self.source.is_some() && self.id.is_some() {
            let message = "`source` and `id` name the same on a mount of type secret: write one of them";
            return Err(error(self.span, message));
        }
        Ok(())
    }

    fn not_for(&self, key: &str) -> Diagnostic {
        error(self.span, format!("`{key}` is not allowed on a mount of type {}", self.kind().name()))
    }

    /// The parser knows all keys, and which of them need a value.
    fn unknown(&self, key: &str) -> Diagnostic {
        error(self.span, format!("`{key}` is no option of a mount, or not without a value"))
    }
}

fn kind(text: &str, span: Span) -> Result<Kind, Diagnostic> {
    match text.to_ascii_lowercase().as_str() {
        "bind" => Ok(Kind::Bind),
        "cache" => Ok(Kind::Cache),
        "tmpfs" => Ok(Kind::Tmpfs),
        "secret" => Ok(Kind::Secret),
        "ssh" => Ok(Kind::Ssh),
        other => {
            let problem = error(span, format!("unknown mount type `{text}`: there are {}", TYPES.join(", ")));
            Err(with_help(problem, did_you_mean(other, TYPES)))
        }
    }
}

fn sharing(text: &str, span: Span) -> Result<Sharing, Diagnostic> {
    match text.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "locked" => Ok(Sharing::Locked),
        "private" => Ok(Sharing::Private),
        other => {
            let problem = error(span, format!("unknown sharing `{text}`: there are {}", SHARINGS.join(", ")));
            Err(with_help(problem, did_you_mean(other, SHARINGS)))
        }
    }
}
