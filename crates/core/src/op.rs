//! What a step does: the closed set of operations, with their canonical encoding.
//!
//! An operation names its inputs by [`StepId`], so a step's identity is the hash of its operation alone, and a
//! cycle cannot be written down. No tags, no host paths, no clocks.

mod copy;
mod run;

pub use copy::{Chmod, CopyFrom, CopyOp, CopySource, Selection, Unpack};
pub use run::{
    Bind, CacheMount, CacheScope, Mount, MountKind, Network, RunOp, SecretMount, Security, Sharing, SshMount,
    Tmpfs,
};

use serde::{Deserialize, Serialize};

use crate::{Canonical, Digest, Purpose, StepId};

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Brings in a base image's files.
    Image(ImageOp),
    /// Stands for a build context. Never executed: its users select files from it.
    Context(ContextOp),
    /// Stands for a file behind a URL. Never executed, like a context.
    Http(HttpOp),
    /// Stands for a commit of a git repository. Never executed, like a context.
    Git(GitOp),
    /// Runs a process.
    Run(RunOp),
    /// Copies files.
    Copy(CopyOp),
    /// Makes the working directory.
    Workdir(WorkdirOp),
    /// Puts layers that were made without a root file system over one (`COPY --link`).
    Merge(MergeOp),
}

/// A base image, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOp {
    /// Digest of the platform's own manifest, not of an index.
    pub manifest: Digest,
}

/// A build context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextOp {
    /// Empty for the main context, else the name given with `--build-context`.
    pub name: String,
}

/// A file behind a URL: a tree that holds this one file.
///
/// The URL names it as a context's name does; what it is worth in a key is what the file turns out to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpOp {
    /// `http://` or `https://`, as written and expanded; without credentials.
    pub url: String,
    /// What the file is called in its tree: the last part of the URL's path.
    pub name: String,
    /// `--checksum`: the SHA-256 that the file must have.
    pub checksum: Option<Digest>,
}

/// Files of a commit of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitOp {
    /// The repository's URL, without fragment and query: `https://`, `http://`, `git://`, `ssh://`, `file://` or
    /// `user@host:path`.
    pub remote: String,
    /// Branch, tag, full ref or commit; the remote's HEAD if none.
    pub reference: Option<String>,
    /// The directory in it that becomes the tree's root; cleaned, without leading slash; empty for all.
    pub subdir: String,
    /// `--checksum`: what the commit's id begins with.
    pub checksum: Option<String>,
    /// Whether `.git` is part of the tree.
    pub keep_git_dir: bool,
    /// Whether submodules are fetched too.
    pub submodules: bool,
}

/// Layers over a root file system that they were not made on.
///
/// Both inputs count by their keys, and nothing of them is looked at: what the layers hold follows from the step that
/// made them. So another root makes this step anew, which costs nothing, and that step not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOp {
    /// The root file system below; none for scratch.
    pub root: Option<StepId>,
    /// The step whose layers go over it. It has no root itself.
    pub layers: StepId,
}

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Its file name.
    pub name: String,
    /// Its content.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
}

/// `WORKDIR`: makes the directory if it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkdirOp {
    /// The root file system; none for scratch.
    pub root: Option<StepId>,
    /// Absolute, cleaned.
    pub path: String,
    /// USER in effect, empty for root: owns what is made.
    pub user: String,
}

impl Op {
    /// Returns whether this only stands for files from outside the graph: it is never executed, has no snapshot,
    /// and its users select files from it.
    pub const fn is_source(&self) -> bool {
        matches!(self, Self::Context(_) | Self::Http(_) | Self::Git(_))
    }

    /// Returns whether this is a source that has to be fetched before there are files.
    pub const fn is_remote(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Git(_))
    }

    /// Returns the root file system input.
    pub fn root(&self) -> Option<StepId> {
        match self {
            Self::Image(_) | Self::Context(_) | Self::Http(_) | Self::Git(_) => None,
            Self::Run(op) => op.root,
            Self::Copy(op) => op.root,
            Self::Workdir(op) => op.root,
            Self::Merge(op) => op.root,
        }
    }

    /// Returns the step whose layers are put over the root.
    pub const fn layers(&self) -> Option<StepId> {
        match self {
            Self::Merge(op) => Some(op.layers),
            _ => None,
        }
    }

    /// Returns each step that files are taken from, with what is taken, in the order of the operation. These are
    /// the inputs that count by content. A cache mount's seed is none of them: it decides nothing about the result.
    pub fn sources(&self) -> Vec<(StepId, Selection)> {
        match self {
            Self::Image(_)
            | Self::Context(_)
            | Self::Http(_)
            | Self::Git(_)
            | Self::Workdir(_)
            | Self::Merge(_) => Vec::new(),
            Self::Run(op) => op.mounts.iter().filter_map(Mount::source).collect(),
            Self::Copy(op) => op
                .sources
                .iter()
                .filter_map(|source| match source {
                    CopySource::From(from) => Some((from.step, from.selection.clone())),
                    CopySource::Inline(_) => None,
                })
                .collect(),
        }
    }

    /// Returns the steps that seed cache mounts.
    pub fn seeds(&self) -> Vec<(StepId, String)> {
        let Self::Run(op) = self else { return Vec::new() };
        let seed = |mount: &Mount| match &mount.kind {
            MountKind::Cache(cache) => cache.seed.clone(),
            MountKind::Bind(_) | MountKind::Tmpfs(_) | MountKind::Secret(_) | MountKind::Ssh(_) => None,
        };
        op.mounts.iter().filter_map(seed).collect()
    }

    /// Returns all steps that must be known before this one: root, layers, sources, seeds.
    pub fn inputs(&self) -> Vec<StepId> {
        let sources = self.sources().into_iter().map(|(id, _)| id);
        let seeds = self.seeds().into_iter().map(|(id, _)| id);
        self.root().into_iter().chain(self.layers()).chain(sources).chain(seeds).collect()
    }

    /// Appends the operation without its inputs: for a key, the inputs' keys and digests follow it.
    pub fn encode(&self, purpose: Purpose, out: &mut Canonical) {
        match self {
            Self::Image(op) => {
                out.u64(1).digest(&op.manifest);
            }
            Self::Context(op) => {
                out.u64(2).str(&op.name);
            }
            Self::Run(op) => op.encode(purpose, out),
            Self::Copy(op) => op.encode(out),
            Self::Workdir(op) => {
                out.u64(5).str(&op.path).str(&op.user);
            }
            Self::Http(op) => {
                out.u64(6).str(&op.url).str(&op.name);
                out.option(op.checksum.as_ref(), |checksum, out| {
                    out.digest(checksum);
                });
            }
            Self::Git(op) => op.encode(out),
            Self::Merge(_) => {
                out.u64(8);
            }
        }
    }
}

impl GitOp {
    fn encode(&self, out: &mut Canonical) {
        out.u64(7).str(&self.remote);
        out.option(self.reference.as_ref(), |reference, out| {
            out.str(reference);
        });
        out.str(&self.subdir);
        out.option(self.checksum.as_ref(), |checksum, out| {
            out.str(checksum);
        });
        out.bool(self.keep_git_dir).bool(self.submodules);
    }
}

impl InlineFile {
    pub(super) fn encode(&self, out: &mut Canonical) {
        out.str(&self.name).str(&self.content).u64(u64::from(self.mode));
    }
}
