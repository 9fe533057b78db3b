//! Checks by name: what can be said of a Dockerfile that can be built nevertheless.

use serde::{Deserialize, Serialize};

/// Who a check comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// BuildKit has it by the same name, and it fires in the same places.
    BuildKit,
    /// As [`BuildKit`](Self::BuildKit), but off unless `# check=experimental=` names it.
    BuildKitExperimental,
    /// kiln's own.
    Kiln,
}

/// The table: name, who it comes from, what it says in one line. In the order of the names.
macro_rules! rules {
    ($($name:ident $origin:ident $description:literal,)*) => {
        /// A check. Those of BuildKit have BuildKit's names (<https://docs.docker.com/reference/build-checks/>).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $description] $name,)*
        }

        impl Rule {
            /// Every rule, in the order of the names.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns its name, as `# check=skip=` takes it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Returns what it finds, in one line.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => $description,)*
                }
            }

            /// Returns who it comes from.
            pub const fn origin(self) -> Origin {
                match self {
                    $(Self::$name => Origin::$origin,)*
                }
            }
        }
    };
}

rules! {
    CacheMountDefeated Kiln "a step empties or switches off the cache that its own mount keeps",
    CacheMountMissing Kiln "a package manager downloads without a cache mount",
    CacheMountNotLocked Kiln "apt shares a cache mount with steps that run at the same time",
    CacheMountNotWritable Kiln "a cache mount belongs to root and the step is somebody else",
    CacheMountOverInstall Kiln "a cache mount hides files that the image or a later step needs",
    CacheMountUnused Kiln "a cache mount is where the package manager does not look",
    ConsistentInstructionCasing BuildKit "instructions are written in different cases",
    CopyBeforeInstall Kiln "all files are copied before dependencies are installed",
    CopyIgnoredFile BuildKit "COPY or ADD names a file that .dockerignore excludes",
    DockerCleanActive Kiln "apt in the base image deletes what its cache mount should keep",
    DuplicateStageName BuildKit "two stages have the same name",
    EmptyWildcard Kiln "a wildcard of COPY or ADD matches nothing",
    ExposeInvalidFormat BuildKit "EXPOSE names an address or a host port",
    ExposeProtoCasing BuildKit "a protocol in EXPOSE is not in lower case",
    FromAsCasing BuildKit "FROM and AS are written in different cases",
    FromPlatformFlagConstDisallowed BuildKit "FROM --platform has a constant value",
    InvalidBaseImagePlatform BuildKit "the base image is for another platform",
    InvalidDefaultArgInFrom BuildKit "without build arguments, FROM names no valid image",
    InvalidDefinitionDescription BuildKitExperimental "a comment above a stage or an argument does not describe it",
    JSONArgsRecommended BuildKit "CMD or ENTRYPOINT in shell form gets no signals",
    LegacyKeyValueFormat BuildKit "ENV or LABEL is written without `=`",
    MaintainerDeprecated BuildKit "MAINTAINER is deprecated",
    MultipleInstructionsDisallowed BuildKit "an instruction that counts once is there twice in a stage",
    NoEmptyContinuation BuildKit "a continued instruction has an empty line",
    RedundantTargetPlatform BuildKit "FROM --platform=$TARGETPLATFORM is the default",
    ReservedStageName BuildKit "a stage has a reserved name",
    SecretCopiedToImage Kiln "a step copies a mounted secret into the image",
    SecretInCommand Kiln "a password or token stands in a command",
    SecretsUsedInArgOrEnv BuildKit "ARG or ENV seems to hold a secret",
    StageNameCasing BuildKit "a stage's name is not in lower case",
    UndefinedArgInFrom BuildKit "FROM uses an argument that nothing declares",
    UndefinedVar BuildKit "a variable is used that nothing sets",
    VariableShadowed Kiln "ARG and ENV set the same variable to different values",
    VolatileArgTooEarly Kiln "an argument that changes with every build stands above steps that do not use it",
    WorkdirRelativePath BuildKit "WORKDIR is relative and nothing in the file set it before",
}

impl Rule {
    /// Finds a rule by its name; case counts, as in `# check=skip=`.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.name() == name)
    }

    /// Whether it is off unless `# check=experimental=` names it.
    pub const fn is_experimental(self) -> bool {
        matches!(self.origin(), Origin::BuildKitExperimental)
    }

    /// Returns where its page is in kiln's documentation: `docs/checks/NAME.md`.
    pub fn page(self) -> String {
        format!("docs/checks/{}.md", self.name())
    }

    /// Returns what a message links to: BuildKit's page for its rules, kiln's for its own.
    pub fn url(self) -> String {
        match self.origin() {
            Origin::Kiln => self.page(),
            // the only one without a short link
            _ if self == Self::InvalidBaseImagePlatform => {
                "https://docs.docker.com/reference/build-checks/invalid-base-image-platform/".to_owned()
            }
            _ => format!("https://docs.docker.com/go/dockerfile/rule/{}/", kebab(self.name())),
        }
    }
}

/// `JSONArgsRecommended` is `json-args-recommended`.
fn kebab(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before_is_lower = at > 0 && letters[at - 1].is_lowercase();
        let next_is_lower = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if at > 0 && letter.is_uppercase() && (before_is_lower || next_is_lower) {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_found() {
        assert!(Rule::ALL.is_sorted_by_key(|rule| rule.name().to_ascii_lowercase()));
        for rule in Rule::ALL {
            assert_eq!(Rule::of_name(rule.name()), Some(*rule));
        }
        assert_eq!(Rule::of_name("undefinedvar"), None);
    }

    #[test]
    fn links() {
        let rows = [
            (Rule::JSONArgsRecommended, "json-args-recommended"),
            (Rule::UndefinedVar, "undefined-var"),
            (Rule::SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env"),
        ];
        for (rule, slug) in rows {
            assert_eq!(rule.url(), format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"));
        }
    }
}
