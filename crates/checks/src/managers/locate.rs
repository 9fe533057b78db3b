//! Where a manager's cache is for a step.

use super::{Cache, Place};
use crate::path;
use crate::shell::Call;
use crate::survey::{Base, Env, User, Value};

/// A place, and whether it is certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    /// Absolute, cleaned.
    pub(crate) path: String,
    /// False if something was assumed about an image that nobody looked at.
    pub(crate) certain: bool,
}

/// What decides where a cache is.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// Variables of the step.
    pub(crate) env: &'a Env,
    /// Who runs it.
    pub(crate) user: &'a User,
    /// Where.
    pub(crate) dir: Option<&'a str>,
    /// On what.
    pub(crate) base: &'a Base,
}

impl Cache {
    /// Returns where it is; nothing if it cannot be known.
    pub(super) fn locate(&self, call: &Call, around: Surroundings<'_>) -> Option<Located> {
        let mut certain = true;
        for place in self.places {
            if let Some(mut found) = place.locate(call, around, &mut certain) {
                found.certain &= certain;
                return Some(found);
            }
        }
        None
    }

    /// Returns the other places that are as good: other versions', and if nothing is certain all that come next.
    pub(super) fn others(&self, call: &Call, around: Surroundings<'_>, certain: bool) -> Vec<String> {
        let all = self.also.iter().chain(if certain { &[][..] } else { self.places });
        all.filter_map(|place| place.locate(call, around, &mut true)).map(|found| found.path).collect()
    }
}

impl Place {
    fn locate(self, call: &Call, around: Surroundings<'_>, certain: &mut bool) -> Option<Located> {
        match self {
            // dnf is dnf5 there
            Self::Fixed("/var/cache/dnf") if is_new_fedora(around.base) => {
                Some(Located { path: "/var/cache/libdnf5".to_owned(), certain: true })
            }
            Self::Fixed(path) => Some(Located { path: path.to_owned(), certain: true }),
            Self::Home(rest) => {
                let (home, known) = home(call, around);
                Some(Located { path: path::resolve("/", &format!("{home}{rest}")), certain: known })
            }
            Self::Variable(name, rest) => {
                let value = match call.variables.get(name) {
                    Some(Some(value)) => Value::Set(value.clone()),
                    Some(None) => Value::Unknown,
                    None => around.env.get(name),
                };
                match value {
                    Value::Set(value) if !value.is_empty() => {
                        // GOPATH is a list
                        let first = value.split(':').next().unwrap_or(&value);
                        let dir = around.dir?;
                        Some(Located { path: path::resolve(dir, &format!("{first}{rest}")), certain: true })
                    }
                    Value::Set(_) | Value::Unset => None,
                    Value::Unknown => {
                        *certain = false;
                        None
                    }
                }
            }
        }
    }
}

/// Fedora 41 and later.
fn is_new_fedora(base: &Base) -> bool {
    let number = base.tag.split(['-', '.']).next().unwrap_or("").parse::<u32>();
    base.name == "fedora"
        && (number.is_ok_and(|number| number >= 41) || ["latest", "rawhide"].contains(&base.tag.as_str()))
}

/// The home directory, and whether it is certain.
fn home(call: &Call, around: Surroundings<'_>) -> (String, bool) {
    let known = !call.other_user;
    match call.variables.get("HOME") {
        Some(Some(home)) => (home.clone(), known),
        Some(None) => (around.user.assumed_home(), false),
        None => match &around.user.home {
            Some(home) => (home.clone(), known),
            None => (around.user.assumed_home(), false),
        },
    }
}
