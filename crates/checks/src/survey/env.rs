//! Variables of which some cannot be known.

use std::collections::HashMap;
use std::sync::Arc;

/// How many stages upon stages are looked through before their variables are put together.
const MAX_CHAIN: usize = 32;

/// What is known of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// It has this value.
    Set(String),
    /// It is not set.
    Unset,
    /// Nobody knows.
    Unknown,
}

/// Variables. A stage that builds on another shares that one's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    own: HashMap<String, Value>,
    inherited: Option<Arc<Env>>,
    depth: usize,
    /// What a name is that nothing here sets: unset, or not known because the base image is not.
    pub(crate) open: bool,
}

impl Env {
    /// Starts with the variables of an image.
    pub(crate) fn new(pairs: impl Iterator<Item = (String, String)>, open: bool) -> Self {
        let own = pairs.map(|(name, value)| (name, Value::Set(value))).collect();
        Self { own, inherited: None, depth: 0, open }
    }

    /// Starts with those of another stage.
    pub(crate) fn upon(base: &Arc<Self>) -> Self {
        let mut env = Self {
            own: HashMap::new(),
            inherited: Some(Arc::clone(base)),
            depth: base.depth + 1,
            open: base.open,
        };
        if env.depth > MAX_CHAIN {
            env = env.flat();
        }
        env
    }

    /// Sets one.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.own.insert(name.to_owned(), value);
    }

    /// Looks one up.
    pub(crate) fn get(&self, name: &str) -> Value {
        match self.find(name) {
            Some(value) => value.clone(),
            None if self.open => Value::Unknown,
            None => Value::Unset,
        }
    }

    /// Looks one up as text: unset is empty, unknown is none.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Value::Set(value) => Some(value),
            Value::Unset => Some(String::new()),
            Value::Unknown => None,
        }
    }

    fn find(&self, name: &str) -> Option<&Value> {
        let mut env = self;
        loop {
            if let Some(value) = env.own.get(name) {
                return Some(value);
            }
            env = env.inherited.as_deref()?;
        }
    }

    fn flat(&self) -> Self {
        let mut layers = vec![self];
        while let Some(next) = layers.last().and_then(|env| env.inherited.as_deref()) {
            layers.push(next);
        }
        let own =
            layers.iter().rev().flat_map(|env| env.own.iter().map(|(k, v)| (k.clone(), v.clone()))).collect();
        Self { own, inherited: None, depth: 0, open: self.open }
    }
}
