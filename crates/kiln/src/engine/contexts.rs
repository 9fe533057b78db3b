//! Build contexts: where files are taken from. The main one is opened at once, named ones when first needed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use kiln_core::{IgnoreList, IoResultExt as _};
use kiln_store::Store;
use kiln_store::tree::{Modes, SourceTree, StatIndex, TreeError};

use super::definition::{Definition, Place};
use super::fetch::Fetch;
use super::files::{Files, FilesKind};
use super::ignore_file;
use crate::request::{ContextSource, NamedSource};
use crate::{BuildRequest, Error};

/// The contexts of one build, by name; the main one has the empty name.
pub(crate) struct Contexts<'a> {
    main: Context,
    named: BTreeMap<&'a str, Named<'a>>,
    modes: Modes,
    fetch: Fetch<'a>,
}

/// A named context that is files: one that no step needs is never fetched.
struct Named<'a> {
    source: &'a ContextSource,
    opened: OnceLock<Result<Context, Error>>,
}

/// One context, opened.
pub(crate) struct Context {
    /// Its directory.
    pub(crate) path: PathBuf,
    /// Its files.
    pub(crate) tree: SourceTree,
    /// What is left out of it.
    pub(crate) ignore: IgnoreList,
    /// Only of directories that are there in the next build too.
    index: Option<Arc<StatIndex>>,
    /// Keeps a directory that is not the user's.
    kind: FilesKind,
}

impl<'a> Contexts<'a> {
    /// Opens the main context and reads the Dockerfile, which may be a part of it.
    pub(crate) fn open(request: &'a BuildRequest, fetch: Fetch<'a>) -> Result<(Self, Definition), Error> {
        let files = fetch.main(request)?;
        let definition = fetch.definition(&request.dockerfile, &request.context, &files)?;
        let modes = request.context_modes;
        let main = Context::open(files, &definition.place, modes, fetch.store)?;
        let named = request.build_contexts.iter().filter_map(|(name, source)| match source {
            NamedSource::Files(source) => Some((name.as_str(), Named { source, opened: OnceLock::new() })),
            NamedSource::OciLayout { .. } | NamedSource::Image(_) => None,
        });
        Ok((Self { main, named: named.collect(), modes, fetch }, definition))
    }

    /// Returns when the commit was made that the main context is a checkout of, seconds since 1970.
    pub(crate) fn commit_time(&self, source: &ContextSource) -> Result<u64, Error> {
        match source {
            ContextSource::Directory(_) => kiln_git::commit_time(&self.main.path)
                .map_err(|error| Error::NoCommit { reason: error.to_string() }),
            // All files of a checkout have the commit's time, and its directory too.
            ContextSource::Git(_) => {
                let meta = std::fs::metadata(&self.main.path).at("stat", &self.main.path)?;
                Ok(u64::try_from(meta.mtime()).unwrap_or(0))
            }
            other => Err(Error::NoCommit {
                reason: format!("the context is {other}, which is no checkout of a commit"),
            }),
        }
    }

    /// Returns a context. The first who asks for a named one opens it, others wait.
    pub(crate) fn get(&self, name: &str) -> Result<&Context, Error> {
        if name.is_empty() {
            return Ok(&self.main);
        }
        let named = self.named.get(name).ok_or_else(|| Error::NoSuchContext { name: name.to_owned() })?;
        let open = || {
            let files = self.fetch.named(name, named.source)?;
            Context::open(files, &Place::Nowhere, self.modes, self.fetch.store)
        };
        named.opened.get_or_init(open).as_ref().map_err(Clone::clone)
    }

    /// Keeps what was learned of the files for the next build.
    pub(crate) fn save(&self) -> Result<(), Error> {
        let named = self.named.values().filter_map(|named| named.opened.get()?.as_ref().ok());
        for context in named.chain([&self.main]) {
            if let Some(index) = &context.index {
                index.save()?;
            }
        }
        Ok(())
    }
}

impl Context {
    fn open(files: Files, dockerfile: &Place, modes: Modes, store: &Store) -> Result<Self, Error> {
        let ignore = ignore_file::find(dockerfile, &files)?;
        let index = match &files.kind {
            FilesKind::Own => Some(Arc::new(store.stat_index(files.root(), &files.path)?)),
            _ => None,
        };
        let (name, list) = ignore.map_or_else(Default::default, |ignore| (Some(ignore.name), ignore.list));
        let Files { path, root, label, kind } = files;
        let mut tree = SourceTree::context(root, label, list.clone(), index.clone()).with_modes(modes);
        if let Some(name) = name {
            tree = tree.with_ignore_name(name);
        }
        Ok(Self { path, tree, ignore: list, index, kind })
    }

    /// Says why a file is not there, where there can be none.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match (&self.kind, error) {
            (FilesKind::Empty { .. }, Error::Tree(TreeError::NotFound { path, .. })) => {
                Error::EmptyContext { path }
            }
            (_, error) => error,
        }
    }
}
