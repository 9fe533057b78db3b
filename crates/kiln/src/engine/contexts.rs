//! Build contexts: the directories that files are taken from, opened once a build.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_core::{IgnoreList, IoResultExt as _};
use kiln_store::Store;
use kiln_store::tree::{SourceTree, StatIndex};

use crate::request::ContextSource;
use crate::{BuildRequest, DockerfileSource, Error};

/// The contexts of one build, by name; the main one has the empty name.
pub(crate) struct Contexts {
    by_name: BTreeMap<String, Context>,
}

/// One directory.
pub(crate) struct Context {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its files.
    pub(crate) tree: SourceTree,
    index: Arc<StatIndex>,
}

impl Contexts {
    /// Opens the main context and each named directory. Reads no files but .dockerignore.
    pub(crate) fn open(request: &BuildRequest, store: &Store) -> Result<Self, Error> {
        let ignore = ignore_list(&request.context, &request.dockerfile)?;
        let mut by_name = BTreeMap::from([(String::new(), Context::open(&request.context, ignore, store)?)]);
        for (name, source) in &request.build_contexts {
            if let ContextSource::Directory(path) = source {
                let ignore = ignore_list(path, &DockerfileSource::Text(String::new()))?;
                by_name.insert(name.clone(), Context::open(path, ignore, store)?);
            }
        }
        Ok(Self { by_name })
    }

    /// Returns a context.
    pub(crate) fn get(&self, name: &str) -> Result<&Context, Error> {
        self.by_name.get(name).ok_or_else(|| Error::NoSuchContext { name: name.to_owned() })
    }

    /// Keeps what was learned of the files for the next build.
    pub(crate) fn save(&self) -> Result<(), Error> {
        for context in self.by_name.values() {
            context.index.save()?;
        }
        Ok(())
    }
}

impl Context {
    fn open(path: &Path, ignore: IgnoreList, store: &Store) -> Result<Self, Error> {
        let path = std::fs::canonicalize(path).at("open build context", path)?;
        let root = File::open(&path).at("open build context", &path)?;
        let index = Arc::new(store.stat_index(&root, &path)?);
        let tree = SourceTree::context(root.into(), &path, ignore, Some(Arc::clone(&index)));
        Ok(Self { path, tree, index })
    }
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile wins over the context's `.dockerignore`.
fn ignore_list(context: &Path, dockerfile: &DockerfileSource) -> Result<IgnoreList, Error> {
    let mut candidates = Vec::new();
    if let DockerfileSource::Path(path) = dockerfile {
        let mut beside = path.clone().into_os_string();
        beside.push(".dockerignore");
        candidates.push(PathBuf::from(beside));
    }
    candidates.push(context.join(".dockerignore"));
    for path in candidates {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error).at("read", &path)?,
        };
        let text = String::from_utf8_lossy(&text);
        return IgnoreList::parse(&text).map_err(|error| Error::IgnoreFile { path, error });
    }
    Ok(IgnoreList::default())
}
