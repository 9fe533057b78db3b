//! What a build sees of its context, what it does not see, and because of which line.

use std::path::{Path, PathBuf};

use kiln_core::{Cancel, EventSink, IgnoreList, IoResultExt as _, Selection, Verdict, clean_path};
use kiln_store::Pin;
use kiln_store::tree::{SourceTree, TreeError, survey};
use rustix::fs::FileType;
use serde::Serialize;

use super::Engine;
use super::definition::{self, Place};
use super::fetch::Fetch;
use super::files::{Files, FilesKind};
use super::ignore_file::{self, IgnoreFile};
use super::remote::Remotes;
use super::reporter::Reporter;
use crate::{BuildRequest, ContextSource, DockerfileSource, Error};

/// A build context, opened to be looked at.
pub struct ContextView {
    name: String,
    files: Files,
    ignore: Option<IgnoreFile>,
    /// What was fetched stays in the store so long.
    _pin: Option<Pin>,
}

/// All files of a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContextListing {
    /// Where the context comes from.
    pub context: String,
    /// The name of the ignore file that counts, if there is one.
    pub ignore_file: Option<String>,
    /// What `COPY . .` would copy, directories not counted, sorted by path.
    pub sent: Vec<ListedFile>,
    /// What each line of the ignore file does.
    pub rules: Vec<RuleUse>,
    /// Directories that cannot be read, and are excluded: what is in them is counted nowhere.
    pub unreadable: Vec<PathBuf>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ListedFile {
    /// Relative to the context.
    pub path: String,
    /// Of a regular file; 0 for links and the like.
    pub bytes: u64,
}

/// One line of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The file's name.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// As written.
    pub text: String,
}

/// What a line of an ignore file does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleUse {
    /// The line.
    #[serde(flatten)]
    pub rule: Rule,
    /// Whether it begins with `!`.
    pub brings_back: bool,
    /// How many files it decides about: of several lines that match, the last one.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Why a path is sent, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Why {
    /// Relative to the context, cleaned.
    pub path: String,
    /// Whether there is such a file.
    pub exists: bool,
    /// If there is none: similar names.
    pub nearby: Vec<String>,
    /// Whether a build sees it (would see it, if there is none).
    pub sent: bool,
    /// The line that excludes it, or did until [`brought_back`](Self::brought_back).
    pub excluded: Option<Rule>,
    /// The line that takes the exclusion back.
    pub brought_back: Option<Rule>,
    /// Whether it is an excluded directory of which a later `!` may bring back parts.
    pub parts_sent: bool,
}

impl Engine {
    /// Opens the main context of a build to look at it; one that is no directory is fetched for it.
    ///
    /// # Errors
    /// The context cannot be had, or its ignore file not be read.
    pub fn context(
        &self,
        request: &BuildRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<ContextView, Error> {
        let pin = self.store.pin()?;
        let reporter = Reporter::new(events);
        let remotes = Remotes::new(&self.store, request, &reporter);
        let fetch = Fetch { store: &self.store, reporter: &reporter, remotes: &remotes, cancel };
        let files = fetch.main(request)?;
        let view = ContextView::new(&request.context, &request.dockerfile, files)?;
        Ok(ContextView { _pin: Some(pin), ..view })
    }
}

impl ContextView {
    /// Opens a directory. Needs no engine.
    ///
    /// # Errors
    /// There is no such directory, or its ignore file cannot be read.
    pub fn directory(dir: &Path, dockerfile: &DockerfileSource) -> Result<Self, Error> {
        Self::new(&ContextSource::Directory(dir.to_owned()), dockerfile, Files::directory(dir)?)
    }

    fn new(source: &ContextSource, dockerfile: &DockerfileSource, files: Files) -> Result<Self, Error> {
        let mut places = match &files.kind {
            FilesKind::Empty { .. } => vec![Place::Nowhere],
            _ => definition::places(dockerfile, source, &files),
        };
        // A context without a Dockerfile can be looked at all the same.
        let there = places.iter().position(|place| is_there(place, &files)).unwrap_or(0);
        let ignore = ignore_file::find(&places.swap_remove(there), &files)?;
        Ok(Self { name: source.to_string(), files, ignore, _pin: None })
    }

    /// Counts all files.
    ///
    /// # Errors
    /// A directory that a build would see cannot be read.
    pub fn list(&self) -> Result<ContextListing, Error> {
        let none = IgnoreList::default();
        let list = self.ignore.as_ref().map_or(&none, |ignore| &ignore.list);
        let mut rules: Vec<RuleUse> = list
            .lines()
            .map(|(line, brings_back)| RuleUse { rule: self.rule(line), brings_back, files: 0, bytes: 0 })
            .collect();
        let mut sent = Vec::new();
        let unreadable = survey(self.files.root(), &self.files.label, list, &mut |file| {
            let decided_by = match file.verdict {
                Verdict::Kept => None,
                Verdict::Excluded { line } | Verdict::BroughtBack { line, .. } => Some(line),
            };
            let found = decided_by.and_then(|line| rules.iter_mut().find(|used| used.rule.line == line));
            if let Some(used) = found {
                used.files += 1;
                used.bytes += file.size;
            }
            if !matches!(file.verdict, Verdict::Excluded { .. }) {
                let path = file.path.to_string_lossy().into_owned();
                sent.push(ListedFile { path, bytes: file.size });
            }
        })?;
        sent.sort_unstable();
        let ignore_file = self.ignore.as_ref().map(|ignore| ignore.name.clone());
        Ok(ContextListing { context: self.name.clone(), ignore_file, sent, rules, unreadable })
    }

    /// Says which line decides about a path.
    ///
    /// # Errors
    /// The file system failed.
    pub fn why(&self, path: &str) -> Result<Why, Error> {
        let path = clean_path(&format!("/{path}")).trim_start_matches('/').to_owned();
        let list = self.ignore.as_ref().map(|ignore| &ignore.list);
        let (excluded, brought_back) = match list.map_or(Verdict::Kept, |list| list.verdict(&path)) {
            Verdict::Kept => (None, None),
            Verdict::Excluded { line } => (Some(self.rule(line)), None),
            Verdict::BroughtBack { line, excluded } => (Some(self.rule(excluded)), Some(self.rule(line))),
        };
        let sent = excluded.is_none() || brought_back.is_some();
        let found = self.files.kind(&path);
        let is_dir = found == Some(FileType::Directory);
        let parts_sent = !sent && is_dir && list.is_some_and(|list| !list.prunes(&path));
        let nearby = if found.is_some() { Vec::new() } else { self.nearby(&path)? };
        Ok(Why { exists: found.is_some(), path, nearby, sent, excluded, brought_back, parts_sent })
    }

    fn nearby(&self, path: &str) -> Result<Vec<String>, Error> {
        let root = self.files.root().try_clone_to_owned().at("open", &self.files.label)?;
        let tree = SourceTree::context(root, &self.files.label, IgnoreList::default(), None);
        match tree.select(&Selection::literal(path)) {
            Err(TreeError::NotFound { nearby, .. }) => Ok(nearby),
            _ => Ok(Vec::new()),
        }
    }

    fn rule(&self, line: usize) -> Rule {
        let (file, text) = self.ignore.as_ref().map_or(("", ""), |ignore| {
            (&ignore.name, ignore.text.lines().nth(line.saturating_sub(1)).unwrap_or_default())
        });
        let text = text.trim_start_matches('\u{feff}').trim();
        Rule { file: file.to_owned(), line, text: text.to_owned() }
    }
}

fn is_there(place: &Place, files: &Files) -> bool {
    match place {
        Place::Nowhere => true,
        Place::Here(path) => path.exists(),
        Place::Inside(path) => files.read(path).is_ok_and(|bytes| bytes.is_some()),
    }
}
