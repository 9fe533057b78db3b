//! CacheMountNotLocked.

use kiln_dockerfile::{Diagnostic, Edit, Rule, Span};

use crate::advice::{finding, insert, with_fix};
use crate::managers::Locking;
use crate::survey::{Mount, Step, Survey};

/// A cache of a manager that fails if another runs on it. <https://github.com/moby/buildkit/issues/1662>
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for (_, step) in survey.steps() {
        for mount in step.caches().filter(|mount| is_shared(mount)) {
            let Some(name) = needs_lock(step, mount) else { continue };
            let target = mount.target.as_deref().unwrap_or(&mount.written);
            let message = format!("two {name} at once fail over {target}, or damage it: the cache is shared");
            let help = "add `sharing=locked`: one step after the other";
            let edits = edit(survey.text, mount).map(|edit| vec![edit]);
            found.push(with_fix(finding(Rule::CacheMountNotLocked, mount.span, message, help), edits));
        }
    }
}

fn is_shared(mount: &Mount) -> bool {
    mount.sharing.as_deref().is_none_or(|sharing| sharing == "shared")
}

fn needs_lock(step: &Step<'_>, mount: &Mount) -> Option<&'static str> {
    let strict = step.usages.iter().filter(|usage| usage.manager.locked == Locking::Must);
    let mut touching = strict.filter(|usage| {
        usage.caches.iter().filter_map(|kept| kept.at.as_ref()).any(|at| mount.touches(&at.path))
    });
    touching.next().map(|usage| usage.manager.name)
}

fn edit(text: &str, mount: &Mount) -> Option<Edit> {
    let written = &text[mount.span.start..mount.span.end];
    if let Some(at) = written.find("sharing=shared") {
        let start = mount.span.start + at;
        return Some(Edit {
            span: Span { start, end: start + "sharing=shared".len() },
            text: "sharing=locked".to_owned(),
        });
    }
    let plain = mount.sharing.is_none() && !written.contains(['"', '\'', '\\', '\n']);
    plain.then(|| insert(mount.span.end, ",sharing=locked"))
}
