//! One file for each rule, or for rules that look at the same thing.

mod copy_first;
mod defeated;
mod docker_clean;
mod missing;
mod not_locked;
mod not_writable;
mod over_install;
mod secrets;
mod shadowed;
mod unused;
mod volatile_arg;

use std::collections::HashMap;

use kiln_dockerfile::{Diagnostic, Fix, Rule};

use crate::survey::Survey;

/// A mount over an install target is often in the wrong place as well: that is said once, with the other's fix.
pub(crate) fn once_each_mount(found: &mut Vec<Diagnostic>) {
    let is = |one: &Diagnostic, rule| one.rule == Some(rule);
    let mut over: HashMap<usize, Option<Fix>> = HashMap::new();
    for one in found.iter().filter(|one| is(one, Rule::CacheMountOverInstall)) {
        over.insert(one.span.start, None);
    }
    found.retain_mut(|one| match over.get_mut(&one.span.start) {
        Some(fix) if is(one, Rule::CacheMountUnused) => {
            *fix = one.fix.take();
            false
        }
        _ => true,
    });
    for one in found.iter_mut().filter(|one| is(one, Rule::CacheMountOverInstall)) {
        one.fix = over.remove(&one.span.start).flatten();
    }
}

/// A rule: looks at a survey and adds what it finds.
type Check = fn(&Survey<'_>, &mut Vec<Diagnostic>);

/// Every rule.
pub(crate) const ALL: &[Check] = &[
    missing::check,
    defeated::check,
    docker_clean::check,
    not_locked::check,
    not_writable::check,
    unused::check,
    over_install::check,
    shadowed::check,
    volatile_arg::check,
    copy_first::check,
    secrets::check,
];
