//! What steps of a build run under that is in no key: it says how a result is come by, not what it is.

use serde::{Deserialize, Serialize};

use crate::DirectoryOrder;

/// How steps run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// What the default network is.
    pub network: NetworkChoice,
    /// How names are looked up.
    pub resolver: Resolver,
    /// What each may use.
    pub resources: Resources,
    /// What is different on purpose; none in a build that is worth keeping.
    pub variation: Option<Variation>,
}

/// What is different in a build, to find out whether its result depends on it. Its steps' results are not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variation {
    /// The host name that steps see.
    pub hostname: String,
    /// So many seconds is kiln's own clock ahead, by which it dates what steps leave.
    #[serde(default)]
    pub ahead: u64,
    /// In which order steps see the entries of directories.
    #[serde(default)]
    pub directory_order: Option<DirectoryOrder>,
}

/// What a step gets that asks for the default network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkChoice {
    /// A private one where pasta is installed and works, else the machine's.
    #[default]
    Default,
    /// The machine's.
    Host,
    /// A private one; steps fail if there can be none.
    Private,
}

/// `--dns`, `--dns-search`, `--dns-option`: what stands in /etc/resolv.conf. What is empty is as on the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resolver {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains that names are looked up in; a single `.` for none.
    pub search: Vec<String>,
    /// Options, such as `timeout:1`.
    pub options: Vec<String>,
}

/// What each step may use at most. Nothing is limited that is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// `--memory`: bytes, of all its processes together.
    pub memory: Option<u64>,
    /// `--memory-swap`: bytes of memory and swap together; twice the memory if none. Only control groups know it.
    pub memory_swap: Option<u64>,
    /// `--cpus`: thousandths of a processor.
    pub cpus_milli: Option<u32>,
    /// `--cpuset-cpus`: the processors that it may use; all if empty.
    pub cpuset: Vec<u32>,
    /// `--pids-limit`: processes and threads at a time.
    pub pids: Option<u32>,
    /// `--step-timeout`: milliseconds until it is ended.
    pub timeout_ms: Option<u64>,
}

impl Resources {
    /// Returns how many bytes of swap may be used besides memory: as in docker, as many as of memory if nothing is said.
    pub fn swap(&self) -> Option<u64> {
        let memory = self.memory?;
        Some(self.memory_swap.map_or(memory, |total| total.saturating_sub(memory)))
    }

    /// Returns whether any of it is for a control group to keep.
    pub const fn wants_group(&self) -> bool {
        self.memory.is_some() || self.pids.is_some() || self.cpus_milli.is_some()
    }
}

/// A limit that a step came up against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exceeded {
    /// It was killed for wanting more memory.
    Memory {
        /// The limit, bytes.
        limit: u64,
    },
    /// It was killed for starting more processes, or could not start them.
    Pids {
        /// The limit.
        limit: u32,
    },
    /// It was killed for taking longer.
    Time {
        /// The limit, milliseconds.
        limit: u64,
    },
}

impl std::fmt::Display for Exceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Memory { limit } if limit % (1 << 20) == 0 => {
                write!(f, "it used more than --memory {}m", limit >> 20)
            }
            Self::Memory { limit } => write!(f, "it used more than --memory {limit}"),
            Self::Pids { limit } => write!(f, "it had more processes than --pids-limit {limit}"),
            Self::Time { limit } if limit % 1000 == 0 => {
                write!(f, "it took longer than --step-timeout {}s", limit / 1000)
            }
            Self::Time { limit } => write!(f, "it took longer than --step-timeout {limit}ms"),
        }
    }
}
