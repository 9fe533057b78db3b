//! The machine that steps of a build see, where a build asks for another one than kiln's own.

use serde::{Deserialize, Serialize};

use crate::Canonical;

/// What docker has flags for: `--add-host`, `--shm-size`, `--ulimit`. All of it is in keys, as in BuildKit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// Further lines of /etc/hosts: address, or `host-gateway` for this machine's, and name.
    pub hosts: Vec<(String, String)>,
    /// Size of /dev/shm, bytes; 64 MiB if none.
    pub shm_size: Option<u64>,
    /// Limits of the step's process and what it starts.
    pub limits: Vec<Limit>,
}

/// One limit: setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// In docker's words: `nofile`.
    pub name: String,
    /// What holds; unlimited if none.
    pub soft: Option<u64>,
    /// What the step may raise it to; unlimited if none.
    pub hard: Option<u64>,
}

impl Machine {
    pub(crate) fn encode(&self, out: &mut Canonical) {
        let number = |value: &u64, out: &mut Canonical| {
            out.u64(*value);
        };
        out.list(&self.hosts, |(address, name), out| {
            out.str(address).str(name);
        });
        out.option(self.shm_size.as_ref(), number);
        out.list(&self.limits, |limit, out| {
            out.str(&limit.name).option(limit.soft.as_ref(), number).option(limit.hard.as_ref(), number);
        });
    }
}
