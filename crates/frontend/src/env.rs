//! Variables by name, in the order in which they were first set.

use std::collections::HashMap;

/// An ordered set of `name=value`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Env {
    entries: Vec<(String, String)>,
    index: HashMap<String, usize>,
}

impl Env {
    /// Reads an image configuration's `Env`; an entry without `=` has an empty value.
    pub(crate) fn of_config(lines: &[String]) -> Self {
        let mut env = Self::default();
        for line in lines {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            env.set(name, value);
        }
        env
    }

    /// Returns a variable's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|&at| self.entries[at].1.as_str())
    }

    /// Sets a variable; one that is there keeps its place, as in the image configuration that BuildKit writes.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.index.get(name) {
            Some(&at) => value.clone_into(&mut self.entries[at].1),
            None => {
                self.index.insert(name.to_owned(), self.entries.len());
                self.entries.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// Goes through all names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Returns all pairs in order.
    pub(crate) fn entries(&self) -> &[(String, String)] {
        &self.entries
    }

    /// Returns `name=value` lines, as an image configuration has them.
    pub(crate) fn to_config(&self) -> Vec<String> {
        self.entries.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}
