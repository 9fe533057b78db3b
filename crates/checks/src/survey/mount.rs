//! `RUN --mount`, as far as checks need it.

use kiln_dockerfile::{MountFlag, Span};

use crate::path;

/// What kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `type=cache`.
    Cache,
    /// `type=secret`.
    Secret,
    /// Any other.
    Other,
}

/// A mount.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    /// What kind.
    pub(crate) kind: Kind,
    /// Absolute, if it can be known.
    pub(crate) target: Option<String>,
    /// As written.
    pub(crate) written: String,
    /// `from=`.
    pub(crate) from: Option<String>,
    /// `sharing=`.
    pub(crate) sharing: Option<String>,
    /// `env=` of a secret.
    pub(crate) env: Option<String>,
    /// Whether it says who owns it, or that everybody may write.
    pub(crate) has_owner: bool,
    /// Whether it may only be read.
    pub(crate) read_only: bool,
    /// Where it stands.
    pub(crate) span: Span,
}

impl Mount {
    /// Reads a flag.
    pub(crate) fn of(flag: &MountFlag, dir: Option<&str>, expand: &dyn Fn(&str) -> Option<String>) -> Self {
        let field = |names: &[&str]| {
            let all = flag.fields.iter().filter(|(key, _)| names.contains(&key.as_str()));
            all.filter_map(|(_, value)| value.as_deref()).next_back()
        };
        let kind = match field(&["type"]).map(str::to_ascii_lowercase).as_deref() {
            Some("cache") => Kind::Cache,
            Some("secret") => Kind::Secret,
            _ => Kind::Other,
        };
        let mut written = field(&["target", "dst", "destination"]).unwrap_or("").to_owned();
        let id = field(&["id", "source", "src"]).unwrap_or("");
        let env = field(&["env"]).map(str::to_owned);
        if kind == Kind::Secret && written.is_empty() && env.is_none() {
            written = format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(""));
        }
        let target = expand(&written).filter(|target| !target.is_empty());
        let target = target.and_then(|target| match (target.starts_with('/'), dir) {
            (true, _) => Some(path::resolve("/", &target)),
            (false, dir) => Some(path::resolve(dir?, &target)),
        });
        let mode = field(&["mode"]).and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let truth = |names: &[&str]| {
            let all = flag.fields.iter().filter(|(key, _)| names.contains(&key.as_str()));
            all.map(|(_, value)| value.as_deref().is_none_or(|value| value != "false")).next_back()
        };
        Self {
            kind,
            target,
            written,
            from: field(&["from"]).filter(|from| !from.is_empty()).map(str::to_owned),
            sharing: field(&["sharing"]).map(str::to_ascii_lowercase),
            env,
            has_owner: field(&["uid"]).is_some() || mode.is_some_and(|mode| mode & 0o002 != 0),
            read_only: truth(&["ro", "readonly"]).unwrap_or(false),
            span: flag.span,
        }
    }

    /// Whether it covers a path, or is in it.
    pub(crate) fn touches(&self, path: &str) -> bool {
        self.target.as_deref().is_some_and(|target| path::overlap(target, path))
    }
}
