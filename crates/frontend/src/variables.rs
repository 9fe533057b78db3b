//! Variables by name, in the order in which they were first set.

use std::collections::HashMap;

use kiln_core::Env;

/// An environment that is looked into by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables {
    env: Env,
    places: HashMap<String, usize>,
}

impl Variables {
    /// Reads an image configuration's `Env`; an entry without `=` has an empty value.
    pub(crate) fn of_config(lines: &[String]) -> Self {
        let mut variables = Self::default();
        for line in lines {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            variables.set(name, value);
        }
        variables
    }

    /// Returns a variable's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.env.at(*self.places.get(name)?)?;
        Some(value)
    }

    /// Sets a variable; one that is there keeps its place, as in the image configuration that BuildKit writes.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.places.get(name) {
            Some(&place) => self.env.set_at(place, value),
            None => {
                let place = self.env.push(name, value);
                self.places.insert(name.to_owned(), place);
            }
        }
    }

    /// Goes through all names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.env.iter().map(|(name, _)| name.as_str())
    }

    /// Returns the environment as a step has it.
    pub(crate) const fn env(&self) -> &Env {
        &self.env
    }

    /// Returns `name=value` lines, as an image configuration has them.
    pub(crate) fn to_config(&self) -> Vec<String> {
        self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}
