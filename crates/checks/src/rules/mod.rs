//! One file for each rule, or for rules that look at the same thing.

mod defeated;
mod docker_clean;
mod missing;
mod not_locked;
mod not_writable;

use kiln_dockerfile::Diagnostic;

use crate::survey::Survey;

/// A rule: looks at a survey and adds what it finds.
type Check = fn(&Survey<'_>, &mut Vec<Diagnostic>);

/// Every rule.
pub(crate) const ALL: &[Check] =
    &[missing::check, defeated::check, docker_clean::check, not_locked::check, not_writable::check];
