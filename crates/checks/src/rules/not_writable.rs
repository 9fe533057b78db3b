//! CacheMountNotWritable.

use kiln_dockerfile::{Diagnostic, Rule};

use crate::advice::{finding, insert, with_fix};
use crate::survey::{Mount, Step, Survey};

/// A cache that root owns, in a step that is somebody else's. <https://github.com/moby/buildkit/issues/1237>
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for (_, step) in survey.steps().filter(|(_, step)| step.user.is_other()) {
        for mount in step.caches() {
            // a seed brings its owner along
            if mount.has_owner || mount.from.is_some() || mount.read_only || is_for_root(step, mount) {
                continue;
            }
            let user = step.user.name.as_deref().unwrap_or("");
            let message =
                format!("a new cache belongs to root, and this step runs as {user}, who cannot write to it");
            let numbers = step.user.uid.zip(step.user.gid);
            let (help, edits) = match numbers {
                Some((uid, gid)) => {
                    let written = &survey.text[mount.span.start..mount.span.end];
                    let plain = !written.contains(['"', '\'', '\\', '\n', '$']) && !written.contains("gid=");
                    let text = format!(",uid={uid},gid={gid}");
                    (format!("add `uid={uid},gid={gid}`"), plain.then(|| vec![insert(mount.span.end, text)]))
                }
                None => (format!("add `uid=` and `gid=` with the numbers of {user}"), None),
            };
            found.push(with_fix(finding(Rule::CacheMountNotWritable, mount.span, message, help), edits));
        }
    }
}

/// `sudo apt-get` works as root.
fn is_for_root(step: &Step<'_>, mount: &Mount) -> bool {
    let mut by_root = step.usages.iter().filter(|usage| usage.call.sudo);
    by_root.any(|usage| {
        usage.caches.iter().filter_map(|kept| kept.at.as_ref()).any(|at| mount.touches(&at.path))
    })
}
