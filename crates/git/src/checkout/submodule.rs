//! Repositories in repositories. <https://git-scm.com/docs/gitmodules>

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use gix_hash::ObjectId;
use gix_object::tree::EntryKind;
use gix_object::{Kind, TreeRefIter};
use gix_validate::path::component;
use kiln_core::IoResultExt as _;

use super::files::Written;
use super::keep::{relative, worktree_config};
use super::{Checkout, Place};
use crate::location::{Location, Reach};
use crate::pack::{Commit, Objects};
use crate::{GitError, Resolved, config};

/// What `.gitmodules` says of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Module {
    name: String,
    path: String,
    url: String,
    /// `update = none`: not to be fetched.
    left_out: bool,
}

impl Checkout<'_, '_> {
    /// Fetches the submodules that were met, each at the commit that the tree names.
    pub(super) fn submodules(
        &mut self,
        location: &Location,
        objects: &mut Objects,
        commit: Commit,
        place: &Place<'_>,
        written: &Written,
    ) -> Result<(), GitError> {
        let wrong = |reason: String| GitError::Modules { remote: location.name.clone(), reason };
        let limit = self.access.limits.submodules;
        if place.depth >= limit {
            return Err(wrong(format!("submodules are more than {limit} deep")));
        }
        let text = gitmodules(objects, commit)?.unwrap_or_default();
        let modules = parse(&text).map_err(wrong)?;
        for (path, id) in &written.submodules {
            let full = Path::new(place.subdir).join(path);
            let module =
                modules.iter().find(|module| Path::new(OsStr::from_bytes(module.path.as_bytes())) == full);
            let Some(module) = module.filter(|module| !module.url.is_empty()) else {
                return Err(wrong(format!("it has no url for {}", full.display())));
            };
            if module.left_out {
                continue;
            }
            self.submodule(location, module, *id, path, place).map_err(|error| match error {
                GitError::Cancelled => GitError::Cancelled,
                error => GitError::Submodule { path: full.display().to_string(), error: Box::new(error) },
            })?;
        }
        Ok(())
    }

    fn submodule(
        &mut self,
        above: &Location,
        module: &Module,
        id: ObjectId,
        path: &Path,
        place: &Place<'_>,
    ) -> Result<(), GitError> {
        let location = above.submodule(&module.url)?;
        if matches!(location.reach, Reach::File(_)) {
            // As git has it since CVE-2022-39253: a repository does not say what is read of this machine.
            let reason = "a submodule must not be a directory of this machine".to_owned();
            return Err(GitError::Unsupported { remote: location.name, reason });
        }
        let target = place.target.join(path);
        let git_dir = match &place.git_dir {
            Some(git_dir) => {
                let rules = component::Options { protect_windows: false, ..component::Options::default() };
                let sound = module.name.split('/').all(|part| {
                    component(part.into(), None, rules).is_ok() && !part.chars().any(char::is_control)
                });
                if !sound {
                    let reason = format!("{:?} cannot be the name of a submodule", module.name);
                    return Err(GitError::Modules { remote: above.name.clone(), reason });
                }
                Some(git_dir.join("modules").join(&module.name))
            }
            None => None,
        };
        let wanted = Resolved { commit: id.into(), tag: None, full_ref: None };
        let below =
            Place { target: target.clone(), git_dir: git_dir.clone(), subdir: "", depth: place.depth + 1 };
        self.repository(&location, &wanted, &below)?;
        if let (Some(git_dir), Some(above)) = (&git_dir, &place.git_dir) {
            let link = target.join(".git");
            fs::write(&link, format!("gitdir: {}\n", relative(&target, git_dir).display()))
                .at("write", &link)?;
            worktree_config(git_dir, &relative(git_dir, &target), above, &module.name, &location.name)?;
        }
        Ok(())
    }
}

/// `.gitmodules` at the root of a commit.
fn gitmodules(objects: &mut Objects, commit: Commit) -> Result<Option<String>, GitError> {
    let data = objects.get(commit.tree, Kind::Tree)?;
    let mut entries = TreeRefIter::from_bytes(data, gix_hash::Kind::Sha1).filter_map(Result::ok);
    let is_file = |kind| matches!(kind, EntryKind::Blob | EntryKind::BlobExecutable);
    let found = entries.find(|entry| entry.filename == ".gitmodules" && is_file(entry.mode.kind()));
    let Some(id) = found.map(|entry| entry.oid.to_owned()) else { return Ok(None) };
    Ok(Some(String::from_utf8_lossy(objects.get(id, Kind::Blob)?).into_owned()))
}

fn parse(text: &str) -> Result<Vec<Module>, String> {
    let settings = config::parse(text).map_err(|line| format!("line {line} cannot be read"))?;
    let mut modules: Vec<Module> = Vec::new();
    for setting in settings.into_iter().filter(|setting| setting.section == "submodule") {
        let known = modules.iter_mut().find(|module| module.name == setting.subsection);
        let module = match known {
            Some(module) => module,
            None => {
                modules.push(Module { name: setting.subsection.clone(), ..Module::default() });
                modules.last_mut().ok_or("no module")?
            }
        };
        match setting.key.as_str() {
            "path" => module.path = setting.value.trim_end_matches('/').to_owned(),
            "url" => module.url = setting.value,
            "update" => module.left_out = setting.value == "none",
            _ => {}
        }
    }
    Ok(modules)
}
