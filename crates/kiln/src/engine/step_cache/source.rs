//! One `--cache-from`: asked for each key at most once, and not at all any more when it has failed.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_core::{Digest, ImageRef, Platform};
use kiln_registry::{RegistryClient, RegistryError};

use super::inline;
use super::list::{List, read_list};
use super::place::{self, Place, list_of_directory};
use super::record::Entry;
use crate::Error;
use crate::engine::reporter::Reporter;
use crate::engine::transfer::Origin;
use crate::request::RecordPlace;

/// Where records are looked for.
pub(super) struct Source {
    /// As it was given.
    pub(super) label: String,
    pub(super) place: Place,
    opened: OnceLock<Opened>,
    asked: Mutex<HashMap<Digest, Cell>>,
    /// Whether nobody needs to know that there is nothing.
    quiet: bool,
    down: AtomicBool,
    /// Why records were passed over, as far as it was said.
    told: Mutex<HashSet<String>>,
}

/// An answer that is there, or on its way.
type Cell = Arc<OnceLock<Option<Arc<Entry>>>>;

/// What looking at a source as a whole brought.
struct Opened {
    /// Where its blobs are.
    origin: Option<Origin>,
    /// Records that came with it, by all their names.
    listed: HashMap<Digest, Arc<Entry>>,
    /// The list of the last build that wrote there, if there is one.
    list: List,
    /// Whether it may have others.
    more: bool,
}

/// What asking takes.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) registry: &'a RegistryClient,
    pub(super) reporter: &'a Reporter<'a>,
    pub(super) platforms: &'a [Platform],
    /// Clamps the times of this build's images.
    pub(super) epoch: Option<u64>,
}

impl Source {
    pub(super) fn new(place: &RecordPlace) -> Option<Self> {
        let label = place.to_string();
        let place = match place {
            RecordPlace::Registry(name) => Place::Registry(name.clone()),
            RecordPlace::Local(path) => Place::Directory(path.clone()),
            RecordPlace::Inline => return None,
        };
        let (opened, asked, told) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Some(Self { label, place, opened, asked, quiet: false, down: AtomicBool::new(false), told })
    }

    /// The same, to look at what is there before one writes to it.
    pub(super) fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// Looks at the list of records, if there is one.
    pub(super) fn look(&self, asking: &Asking<'_>) {
        self.opened.get_or_init(|| self.open(asking));
    }

    /// Whether it was given up.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Gives it up, and says so once.
    pub(super) fn give_up(&self, why: &dyn std::fmt::Display, reporter: &Reporter<'_>) {
        if !self.down.swap(true, Ordering::Relaxed) && !self.quiet {
            let message = format!("no results of steps are taken from {}: {why}", self.label);
            reporter.warn(message, None);
        }
    }

    /// Returns the record that is known under a content or definition key. Two threads that ask for the same wait for one
    /// answer.
    pub(super) fn find(&self, name: &Digest, asking: &Asking<'_>) -> Option<(Arc<Entry>, Origin)> {
        if self.is_down() {
            return None;
        }
        let opened = self.opened.get_or_init(|| self.open(asking));
        let origin = opened.origin.clone()?;
        if let Some(entry) = opened.listed.get(name) {
            return Some((Arc::clone(entry), origin));
        }
        if !opened.more || self.is_down() {
            return None;
        }
        let cell = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(asked.entry(*name).or_default())
        };
        let entry = cell.get_or_init(|| self.ask(name, asking)).clone()?;
        Some((entry, origin))
    }

    /// Whether it is known to have this very record under its names.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        let Some(manifest) = &entry.manifest else { return false };
        let same = |known: &Entry| known.manifest.as_ref().is_some_and(|m| m.digest == manifest.digest);
        let listed = |name: &Digest| self.opened.get().and_then(|opened| opened.listed.get(name));
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |name: &Digest| asked.get(name).and_then(|cell| cell.get().cloned().flatten());
        entry.names().all(|name| {
            listed(name).is_some_and(|known| same(known)) || found(name).is_some_and(|known| same(&known))
        })
    }

    /// The list that was there when it was looked at.
    pub(super) fn list(&self) -> Option<&List> {
        Some(&self.opened.get()?.list)
    }

    /// Where its blobs are, if it was looked at.
    pub(super) fn origin(&self) -> Option<&Origin> {
        self.opened.get()?.origin.as_ref()
    }

    fn ask(&self, name: &Digest, asking: &Asking<'_>) -> Option<Arc<Entry>> {
        match self.place.get(asking.registry, name) {
            Ok(None) | Err(Error::Interrupted | Error::Registry(RegistryError::Cancelled)) => None,
            Ok(Some(document)) => match Entry::read(document) {
                Ok(entry) if entry.answers(name) => Some(Arc::new(entry)),
                Ok(_) => self.passed_over(name, "it is the record of another step", asking),
                Err(reason) => self.passed_over(name, &reason, asking),
            },
            Err(error) => {
                self.give_up(&error, asking.reporter);
                None
            }
        }
    }

    fn passed_over(&self, name: &Digest, reason: &str, asking: &Asking<'_>) -> Option<Arc<Entry>> {
        // A newer kiln's records are many, and all alike.
        let is_new = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(reason.to_owned());
        if is_new && !self.quiet {
            let message = format!("a record in {} is passed over ({}): {reason}", self.label, name.short());
            asking.reporter.warn(message, None);
        }
        None
    }

    fn open(&self, asking: &Asking<'_>) -> Opened {
        let opened = match &self.place {
            Place::Directory(dir) => open_directory(dir).inspect(|opened| {
                self.say_if_newer(&opened.list, asking);
            }),
            Place::Registry(name) => self.open_registry(name, asking),
        };
        opened.unwrap_or_else(|error| {
            if !matches!(error, Error::Interrupted | Error::Registry(RegistryError::Cancelled)) {
                self.give_up(&error, asking.reporter);
            }
            Opened { origin: None, listed: HashMap::new(), list: List::default(), more: false }
        })
    }

    /// Its records may be, too; each is looked at.
    fn say_if_newer(&self, list: &List, asking: &Asking<'_>) {
        if list.is_newer && !self.quiet {
            let message = format!(
                "the list of results in {} is one that a newer kiln writes: each is asked for by itself",
                self.label
            );
            asking.reporter.warn(message, None);
        }
    }

    fn open_registry(&self, name: &ImageRef, asking: &Asking<'_>) -> Result<Opened, Error> {
        let origin = Some(Origin::Registry(name.clone()));
        let document = match name.digest {
            Some(digest) => Some(asking.registry.manifest(name, digest)?),
            None => asking.registry.tagged(name)?,
        };
        let Some(document) = document else {
            if !self.quiet {
                let message = format!("there is no cache under {} yet", self.label);
                asking.reporter.warn(message, None);
            }
            return Ok(Opened { origin, listed: HashMap::new(), list: List::default(), more: true });
        };
        let (entries, list, more) = match read_list(&document) {
            Some(list) => {
                self.say_if_newer(&list, asking);
                (list.entries.clone(), list, true)
            }
            // An image: what its configuration says, and no more.
            None => {
                let mut entries = Vec::new();
                let mut unread = None;
                for platform in asking.platforms {
                    let pinned = ImageRef { digest: Some(document.digest), ..name.clone() };
                    let known =
                        |digest: &Digest| (*digest == document.digest).then(|| document.bytes.clone());
                    match asking.registry.resolve(&pinned, platform, &known) {
                        Ok(image) => match inline::read(&image, asking.epoch) {
                            Ok(found) => entries.extend(found.into_iter().map(Arc::new)),
                            Err(reason) => unread = Some(reason),
                        },
                        Err(RegistryError::Image { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                if entries.is_empty() && !self.quiet {
                    let message = match unread {
                        Some(reason) => {
                            format!("the results of steps in {} are passed over: {reason}", self.label)
                        }
                        None => format!(
                            "{} holds no results of steps: it was not built with --cache-to type=inline",
                            self.label
                        ),
                    };
                    asking.reporter.warn(message, None);
                }
                (entries, List::default(), false)
            }
        };
        let mut listed = HashMap::new();
        for entry in entries {
            let names: Vec<Digest> = entry.names().copied().collect();
            listed.extend(names.into_iter().map(|name| (name, Arc::clone(&entry))));
        }
        Ok(Opened { origin, listed, list, more })
    }
}

fn open_directory(dir: &Path) -> Result<Opened, Error> {
    let origin = Some(Origin::Layout(Arc::new(place::open(dir)?)));
    // Its records are as near as itself: the list only says which of them were one build's.
    let list = list_of_directory(dir).as_ref().and_then(read_list).unwrap_or_default();
    Ok(Opened { origin, listed: HashMap::new(), list, more: true })
}
