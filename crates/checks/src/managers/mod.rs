//! What package managers are called, when they download, where they cache, and what makes them forget.

mod locate;
mod table;
mod usage;

pub(crate) use locate::{Located, Surroundings};
pub(crate) use usage::{Off, Usage, flag_value};

/// One package manager.
#[derive(Debug)]
pub(crate) struct Manager {
    /// As messages call it.
    pub(crate) name: &'static str,
    /// Programs; `pip3.` stands for every name that begins so and goes on with digits.
    pub(crate) programs: &'static [&'static str],
    /// Sub-commands that download; two words if the first does not say it. Empty: all but `idle`.
    pub(crate) downloads: &'static [&'static str],
    /// Sub-commands and flags that only look.
    pub(crate) idle: &'static [&'static str],
    /// Whether it installs when called without any sub-command.
    pub(crate) bare: bool,
    /// Flags whose value is the next word.
    pub(crate) valued: &'static [&'static str],
    /// What it caches.
    pub(crate) caches: &'static [Cache],
    /// Whether several at once would harm the cache, so that a mount needs `sharing=locked`.
    pub(crate) locked: Locking,
    /// Flags that say where the cache is.
    pub(crate) dir_flags: &'static [&'static str],
    /// Flags that switch the cache off.
    pub(crate) off_flags: &'static [&'static str],
    /// Flags that say that nothing is downloaded.
    pub(crate) offline: &'static [&'static str],
    /// Variables that switch the cache off if they have any value.
    pub(crate) off_variables: &'static [&'static str],
    /// Commands that empty the cache.
    pub(crate) cleans: &'static [&'static [&'static str]],
}

/// What several processes at once do to a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Nothing: the manager locks it itself, or cares not.
    Own,
    /// Some harm may come: a new mount gets `sharing=locked`.
    Better,
    /// They fail: a mount without `sharing=locked` is a mistake.
    Must,
}

/// A directory that a manager keeps.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Where it is: the first of these that can be.
    pub(crate) places: &'static [Place],
    /// Sub-commands that use it; empty for all.
    pub(crate) only: &'static [&'static str],
    /// Whether a step without it has no cache to speak of.
    pub(crate) essential: bool,
    /// Further places that are as good, for other versions of the program.
    pub(crate) also: &'static [Place],
}

/// Where a directory is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Below what a variable says, if it says anything.
    Variable(&'static str, &'static str),
    /// Below the home directory.
    Home(&'static str),
    /// Always here.
    Fixed(&'static str),
}

impl Manager {
    /// Returns how paths of its caches end in any home.
    pub(crate) fn home_endings(&self) -> impl Iterator<Item = &'static str> {
        let places = self.caches.iter().flat_map(|cache| cache.places.iter().chain(cache.also));
        places.filter_map(|place| match place {
            Place::Home(rest) => Some(*rest),
            _ => None,
        })
    }

    /// Finds the manager that a program is.
    pub(crate) fn of_program(program: &str) -> Option<&'static Self> {
        table::managers().find(|manager| {
            manager.programs.iter().any(|name| match name.strip_suffix('.') {
                Some(stem) => program.strip_prefix(stem).is_some_and(|rest| {
                    rest.starts_with('.')
                        && rest.len() > 1
                        && rest[1..].bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
                }),
                None => *name == program,
            })
        })
    }
}
