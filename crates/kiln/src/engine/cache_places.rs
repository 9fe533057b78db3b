//! What a build says of cache mounts that are kept in directories of the user's.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;

use kiln_core::{CacheScope, MountKind, Op, Platform};
use kiln_runtime::IdMode;
use kiln_store::cache_mount::{CacheError, CacheMounts, CacheName, CachePlace, CacheRequest, PlaceProblem};

use super::Engine;
use super::build::Build;
use crate::request::ContextSource;
use crate::{BuildRequest, Error, NamedSource};

impl Build<'_> {
    /// Warns of places that are of no use, or in the way; and makes those of other users ready.
    ///
    /// # Errors
    /// See [`Engine::own_places`].
    pub(super) fn check_places(&self) -> Result<(), Error> {
        let places = &self.request.cache_mounts;
        if places.is_empty() {
            return Ok(());
        }
        let (mut wanted, mut requests) = (BTreeSet::new(), Vec::new());
        for (_, step) in self.plan.graph.iter() {
            let Op::Run(run) = &step.op else { continue };
            for mount in &run.mounts {
                if let MountKind::Cache(cache) = &mount.kind {
                    wanted.insert((cache.id.as_str(), cache.scope.clone()));
                    requests.push(CacheRequest::new(&mount.target, cache));
                }
            }
        }
        let own = CacheScope::Platform(Platform::host().to_string());
        for place in places {
            let fits = |(id, scope): &(&str, CacheScope)| {
                *id == place.id
                    && match &place.scope {
                        Some(asked) => scope == asked,
                        None => *scope == CacheScope::Global || *scope == own,
                    }
            };
            if !wanted.iter().any(fits) {
                if !place.standing {
                    self.reporter.warn(unused(&place.id, &wanted), None);
                }
                continue;
            }
            let Some((_, path)) = self.caches.places().find(|(id, _)| *id == place.id) else { continue };
            for (name, dir) in self.directories() {
                let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
                let Ok(inside) = path.strip_prefix(dir) else { continue };
                let path = inside.to_string_lossy();
                // The context itself is not searched for a cache, and only the main one's rules are known here.
                if name.is_empty()
                    && self.contexts.get("").is_ok_and(|context| context.ignore.is_excluded(&path))
                {
                    continue;
                }
                let message = format!(
                    "cache {:?} is kept inside of the build context: a COPY of all files takes the cache, and misses whenever it \
                     has changed; put `{path}` into .dockerignore",
                    place.id
                );
                self.reporter.warn(message, None);
            }
        }
        self.engine.own_places(&self.caches, &requests)
    }

    /// The directories that files are taken from.
    fn directories(&self) -> Vec<(&str, &std::path::Path)> {
        let named = self.request.build_contexts.iter().filter_map(|(name, source)| match source {
            NamedSource::Files(ContextSource::Directory(dir)) => Some((name.as_str(), dir.as_path())),
            _ => None,
        });
        let main = match &self.request.context {
            ContextSource::Directory(dir) => Some(("", dir.as_path())),
            _ => None,
        };
        main.into_iter().chain(named).collect()
    }
}

fn unused(id: &str, wanted: &BTreeSet<(&str, CacheScope)>) -> String {
    let elsewhere: Vec<&str> = wanted
        .iter()
        .filter_map(|(other, scope)| match scope {
            CacheScope::Platform(platform) if *other == id => Some(platform.as_str()),
            _ => None,
        })
        .collect();
    if !elsewhere.is_empty() {
        return format!(
            "--cache-mount id={id}: steps mount it for {} only, which counts as another cache; add scope={}",
            elsewhere.join(" and "),
            elsewhere[0]
        );
    }
    let ids: BTreeSet<&str> = wanted.iter().map(|(id, _)| *id).collect();
    match ids.len() {
        0 => format!("--cache-mount id={id}: no step mounts a cache"),
        _ => format!(
            "--cache-mount id={id}: no step mounts a cache of this id; there are {}",
            ids.into_iter().collect::<Vec<_>>().join(", ")
        ),
    }
}

impl Engine {
    /// Lets caches in directories of the user's be the user's although kiln is root: what a step writes as the owner that its mount
    /// asks for belongs on disk to whom the directory belongs. Without root that is so anyway, for root inside is the user.
    pub(super) fn own_places(&self, caches: &CacheMounts, requests: &[CacheRequest]) -> Result<(), Error> {
        let wanted = |place: &&CachePlace| requests.iter().any(|request| request.id == place.id);
        let beyond: Vec<CachePlace> = self.out_of_reach.iter().filter(wanted).cloned().collect();
        // That says why not.
        self.placing(&beyond)?;
        if !matches!(self.entered.ids(), IdMode::Root | IdMode::Mapped) {
            return Ok(());
        }
        for request in requests {
            let name = CacheName { id: request.id.clone(), scope: request.scope.clone() };
            let Some(place) = caches.place(&name) else { continue };
            caches.make_for_owner(&name, request.mode);
            // One that is still not there is made for the step's owner.
            let Ok(found) = std::fs::metadata(place) else { continue };
            let (uid, gid) = ((found.uid(), request.uid), (found.gid(), request.gid));
            if uid.0 == uid.1 {
                continue;
            }
            kiln_runtime::show_owner(&self.entered, place, uid, gid).map_err(|error| CacheError::Place {
                id: request.id.clone(),
                path: place.to_owned(),
                problem: PlaceProblem::Owner { uid: uid.0, reason: error.message },
            })?;
        }
        Ok(())
    }
}

/// How others see a build who wait for it. No address of a remote context: there may be a password in it.
pub(super) fn label(request: &BuildRequest) -> String {
    let context = match &request.context {
        ContextSource::Directory(path) | ContextSource::Archive(path) => path.display().to_string(),
        ContextSource::Http(_) | ContextSource::Git(_) => "a remote context".to_owned(),
        ContextSource::Empty | ContextSource::Stdin => "standard input".to_owned(),
    };
    match request.tags.first() {
        Some(tag) => format!("{context} ({})", tag.familiar()),
        None => context,
    }
}
