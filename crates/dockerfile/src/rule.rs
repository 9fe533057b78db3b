//! Checks by name: what can be said of a Dockerfile that can be built nevertheless.

use serde::{Deserialize, Serialize};

/// A check. Those of BuildKit have BuildKit's names (<https://docs.docker.com/reference/build-checks/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Rule {
    /// A variable is used that nothing set.
    UndefinedVar,
}

impl Rule {
    /// Every rule, in the order of the names.
    pub const ALL: &[Self] = &[Self::UndefinedVar];

    /// Returns its name, as `# check=skip=` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UndefinedVar => "UndefinedVar",
        }
    }
}
