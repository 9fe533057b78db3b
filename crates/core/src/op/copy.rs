//! `COPY` and `ADD`: which files, and what becomes of them.

use serde::{Deserialize, Serialize};

use crate::{Canonical, InlineFile, StepId};

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOp {
    /// The root file system that is copied into; none for scratch.
    pub root: Option<StepId>,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Absolute, cleaned destination, without trailing slash (but `/`).
    pub dest: String,
    /// Whether the destination was written as a directory (a trailing slash, or `.`).
    pub dest_is_dir: bool,
    /// `--chown` as written: `user[:group]`, names or numbers; looked up in the destination.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// Which sources are archives whose content is meant.
    pub unpack: Unpack,
}

/// Which sources are unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpack {
    /// None: `COPY`, and `ADD` of a URL.
    #[default]
    Never,
    /// Each file that is a tar, plain or compressed, by its content: `ADD` of local files, and `ADD --unpack`.
    Archives,
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chmod {
    /// `0755`: replaces the permission bits of files and directories.
    Octal(u32),
    /// `u=rwX,go=rX`, as written and already validated.
    Symbolic(String),
}

/// One source of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopySource {
    /// Files of a context, stage or image.
    From(CopyFrom),
    /// A heredoc.
    Inline(InlineFile),
}

/// Files of a context, stage or image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFrom {
    /// Where from.
    pub step: StepId,
    /// Which of them.
    pub selection: Selection,
}

/// Which files of a source are meant: the part of a copy that decides what is hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selection {
    /// A path or wildcard relative to the source's root, cleaned, without leading slash; empty for the root
    /// itself. Wildcards follow Go's filepath.Match.
    pub path: String,
    /// Whether `path` may be a wildcard; bind mounts name paths literally.
    pub wildcard: bool,
    /// `--exclude`: what matches is left out, in the form of .dockerignore's patterns. They are relative to what
    /// `path` matches, if that is a directory; a file is held against them by its name. With `parents` they are
    /// relative to the directory that those name.
    pub exclude: Vec<String>,
    /// `--parents`: the files keep the directories of their path, all but these leading ones: the part before
    /// `/./`, cleaned, with which `path` begins; empty if there is none, and then `path` is kept as a whole. They
    /// may be a wildcard, and what follows them in `path` may hold `**`. None without `--parents`.
    pub parents: Option<String>,
}

impl CopyOp {
    pub(super) fn encode(&self, out: &mut Canonical) {
        out.u64(4);
        out.list(&self.sources, |source, out| match source {
            // Which files is said by the selection (in an id) or by their digest (in a content key); only the
            // name that a file arrives under matters besides: renaming a parent directory changes nothing.
            CopySource::From(from) => {
                out.u64(1).bool(from.selection.wildcard).bool(from.selection.parents.is_some());
            }
            CopySource::Inline(file) => {
                out.u64(2);
                file.encode(out);
            }
        });
        out.str(&self.dest).bool(self.dest_is_dir);
        out.option(self.chown.as_ref(), |chown, out| {
            out.str(chown);
        });
        out.option(self.chmod.as_ref(), |chmod, out| match chmod {
            Chmod::Octal(mode) => {
                out.u64(1).u64(u64::from(*mode));
            }
            Chmod::Symbolic(text) => {
                out.u64(2).str(text);
            }
        });
        out.u64(self.unpack.number());
    }
}

impl Unpack {
    const fn number(self) -> u64 {
        match self {
            Self::Never => 0,
            Self::Archives => 1,
        }
    }
}

impl Selection {
    /// Selects everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Selects what stands at a path.
    pub fn literal(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Selects what a path means that may be a wildcard.
    pub fn wildcard(path: impl Into<String>) -> Self {
        Self { path: path.into(), wildcard: true, ..Self::default() }
    }

    /// Appends the selection.
    pub fn encode(&self, out: &mut Canonical) {
        out.str(&self.path).bool(self.wildcard);
        out.list(&self.exclude, |pattern, out| {
            out.str(pattern);
        });
        out.option(self.parents.as_ref(), |pivot, out| {
            out.str(pivot);
        });
    }
}
