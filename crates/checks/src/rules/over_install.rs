//! CacheMountOverInstall.

use std::collections::BTreeSet;

use kiln_dockerfile::{Diagnostic, Rule};

use crate::advice::finding;
use crate::managers::{Usage, flag_value};
use crate::path::{is_in, overlap, resolve};
use crate::shell::Call;
use crate::survey::{Copied, Mount, Stage, Step, Survey};

/// A cache mount over what the image, or a later step, needs: there it is empty.
/// <https://github.com/moby/buildkit/issues/2147>
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    let wanted = Wanted::of(survey);
    for (stage, step) in survey.steps() {
        for mount in step.caches() {
            let Some(target) = mount.target.as_deref() else { continue };
            let Some(lost) = lost(survey, &wanted, stage, step, target) else { continue };
            let message = format!("{lost}, and what is in a cache mount is not in the image");
            found.push(finding(Rule::CacheMountOverInstall, mount.span, message, help(step, mount)));
        }
    }
}

/// What files others take from each stage.
struct Wanted {
    /// By stage: paths that a COPY --from takes, with nothing of what it builds on.
    taken: Vec<BTreeSet<String>>,
    /// Whether a stage becomes the image, or is below it.
    is_image: Vec<bool>,
}

impl Wanted {
    fn of(survey: &Survey<'_>) -> Self {
        let mut taken = vec![BTreeSet::new(); survey.stages.len()];
        for copied in survey.stages.iter().flat_map(|stage| &stage.copies) {
            if let Some(stage) = copied.stage {
                taken[stage].extend(copied.sources.iter().cloned());
            }
        }
        // what is taken from a stage may have been made in one below it
        for number in (0..survey.stages.len()).rev() {
            if let Some(parent) = survey.stages[number].parent {
                let more = taken[number].clone();
                taken[parent].extend(more);
            }
        }
        let mut is_image = vec![false; survey.stages.len()];
        if !survey.stages.is_empty() {
            survey.chain(survey.target).for_each(|stage| is_image[stage.number] = true);
        }
        Self { taken, is_image }
    }

    /// A path in `dir` that is taken from a stage.
    fn below(&self, stage: usize, dir: &str) -> Option<&str> {
        let next = self.taken[stage].range(dir.to_owned()..).next()?;
        is_in(next, dir).then_some(next)
    }

    /// Whether a path is in the image or taken from its stage.
    fn wants(&self, stage: usize, path: &str) -> bool {
        self.is_image[stage] || self.taken[stage].iter().any(|taken| overlap(taken, path))
    }
}

/// What is lost under a mount, if it is certain that something is.
fn lost(
    survey: &Survey<'_>,
    wanted: &Wanted,
    stage: &Stage<'_>,
    step: &Step<'_>,
    target: &str,
) -> Option<String> {
    if let Some(dir) = &step.dir
        && is_in(dir, target)
        && !["/tmp", "/var/tmp", "/var/cache"].iter().any(|temporary| is_in(target, temporary))
    {
        return Some(format!("the mount hides {dir}, where the step works"));
    }
    if target.split('/').any(|part| part == "site-packages" || part == "dist-packages") {
        return Some(format!("packages are installed to {target}"));
    }
    const PROGRAMS: [&str; 8] =
        ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin", "/lib", "/usr/lib", "/etc"];
    if let Some(dir) = PROGRAMS.iter().find(|dir| is_in(dir, target)) {
        return Some(format!("the mount hides {dir}"));
    }
    if saves(step, target) {
        return None;
    }
    for usage in step.usages.iter().filter(|usage| usage.downloads) {
        let dest = destination(survey, step, usage);
        if let Some(dest) = dest.filter(|dest| is_in(dest, target) && wanted.wants(stage.number, dest))
            && !(dest.ends_with("/node_modules") && builds(step))
        {
            return Some(format!("{} installs to {dest}", usage.manager.name));
        }
    }
    if let Some(taken) = wanted.below(stage.number, target)
        && taken != target
        && !is_made_elsewhere(survey, stage, step, target, taken)
    {
        return Some(format!("a COPY takes {taken} from this stage"));
    }
    if wanted.is_image[stage.number] {
        let image = &survey.stages[survey.target];
        let on_path = image.path.iter().flatten().find(|dir| is_in(dir, target));
        if let Some(dir) = on_path
            && !is_made_elsewhere(survey, image, step, target, dir)
        {
            return Some(format!("PATH has {dir}"));
        }
        let run =
            image.command.iter().find(|word| word.starts_with('/') && is_in(&resolve("/", word), target));
        if let Some(path) = run
            && !is_made_elsewhere(survey, image, step, target, path)
        {
            return Some(format!("the image runs {path}"));
        }
    }
    None
}

/// Whether a step moves what it makes out of a directory.
fn saves(step: &Step<'_>, target: &str) -> bool {
    const MOVERS: [&str; 8] = ["cp", "mv", "rsync", "tar", "install", "ln", "find", "cpio"];
    step.calls.iter().any(|call| {
        MOVERS.contains(&call.program.as_str())
            && call.args.iter().any(|arg| match (&arg.value, &call.dir, &step.dir) {
                (None, ..) => true,
                (Some(path), _, _) if path.starts_with('/') => overlap(&resolve("/", path), target),
                (Some(path), _, _) if path.starts_with('-') => false,
                (Some(path), Some(moved), Some(dir)) => overlap(&resolve(&resolve(dir, moved), path), target),
                _ => true,
            })
    })
}

/// Whether a step makes something of its modules: then these may have done their work.
fn builds(step: &Step<'_>) -> bool {
    step.calls.iter().any(|call| !step.usages.iter().any(|usage| usage.call == *call && usage.downloads))
}

/// Whether another instruction may put a file there.
fn is_made_elsewhere(
    survey: &Survey<'_>,
    last: &Stage<'_>,
    step: &Step<'_>,
    target: &str,
    path: &str,
) -> bool {
    survey.chain(last.number).any(|stage| {
        let puts = |copied: &Copied<'_>| match &copied.dest {
            // all files of the context hardly hold what a step compiles
            Some(dest) => is_in(dest, target) || copied.copy.from.is_some() && is_in(path, dest),
            None => true,
        };
        let makes = |other: &Step<'_>| {
            let covers =
                other.caches().any(|mount| mount.target.as_deref().is_none_or(|dir| is_in(path, dir)));
            let text = other.script.as_ref().map_or(other.located.text.as_str(), |script| &script.text);
            let name = path.rsplit('/').next().unwrap_or(path);
            other.located.span != step.located.span
                && !covers
                && (text.contains(target) || text.contains(name))
        };
        stage.copies.iter().any(puts) || stage.steps.iter().any(makes)
    })
}

/// Where a call puts what it installs, if that can be known.
fn destination(survey: &Survey<'_>, step: &Step<'_>, usage: &Usage) -> Option<String> {
    let call = &usage.call;
    let dir = || Some(resolve(step.dir.as_deref()?, call.dir.as_deref()?));
    let flag = |names: &[&str]| flag_value(&call.args, names).flatten();
    let has = |name: &str| call.args.iter().any(|arg| arg.value.as_deref() == Some(name));
    let kept = || usage.caches.first().and_then(|kept| kept.at.as_ref()).filter(|at| at.certain);
    match (usage.manager.name, usage.verb.as_str()) {
        ("pip", "install") => match flag(&["--target", "-t", "--prefix", "--root"]) {
            Some(path) => Some(resolve(&dir()?, &path)),
            None if has("--user") => Some(resolve(step.home.as_deref()?, ".local")),
            None => virtual_environment(call),
        },
        ("npm" | "yarn" | "pnpm" | "bun", _) if !has("-g") && !has("--global") && usage.verb != "fetch" => {
            Some(resolve(&dir()?, "node_modules"))
        }
        ("composer", "install" | "update" | "require") => Some(resolve(&dir()?, "vendor")),
        ("uv", "sync") => Some(resolve(&dir()?, ".venv")),
        // unless told otherwise poetry keeps environments in its cache
        ("poetry", "install" | "sync" | "add") => {
            let says = survey.text.to_ascii_lowercase().contains("virtualenvs");
            let artifacts = kept()?.path.strip_suffix("/artifacts")?;
            (!says).then(|| format!("{artifacts}/virtualenvs"))
        }
        ("cargo", "install") => match flag(&["--root"]) {
            Some(path) => Some(resolve(&dir()?, &path)),
            None => Some(format!("{}/bin", kept()?.path.strip_suffix("/registry")?)),
        },
        ("go", "install") => Some(format!("{}/bin", kept()?.path.strip_suffix("/pkg/mod")?)),
        ("go", "build") => flag(&["-o"]).and_then(|path| Some(resolve(&dir()?, &path))),
        ("nuget", "publish") => flag(&["-o", "--output"]).and_then(|path| Some(resolve(&dir()?, &path))),
        _ => None,
    }
}

/// `/venv/bin/pip` installs to /venv.
fn virtual_environment(call: &Call) -> Option<String> {
    let dir = call.path.strip_suffix(&call.program)?.strip_suffix("/bin/")?;
    (dir.starts_with('/') && dir != "/usr" && dir != "/usr/local").then(|| dir.to_owned())
}

fn help(step: &Step<'_>, mount: &Mount) -> String {
    let mut kept = step.usages.iter().filter(|usage| usage.downloads).flat_map(|usage| &usage.caches);
    let place = kept.find_map(|kept| kept.at.as_ref()).map(|at| at.path.as_str());
    match place.filter(|place| !mount.touches(place) || mount.target.as_deref() != Some(place)) {
        Some(place) => format!("mount only the cache, `target={place}`, or copy what is needed elsewhere"),
        None => "copy what is needed elsewhere in the same step, or mount another directory".to_owned(),
    }
}
