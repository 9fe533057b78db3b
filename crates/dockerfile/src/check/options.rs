//! `skip=A,B;error=true;experimental=X`: of `# check=`, of the build argument BUILDKIT_DOCKERFILE_CHECK, and of a comment
//! `# check=` directly above an instruction.

use std::collections::BTreeSet;

use crate::{Diagnostic, Dockerfile, Rule, Severity, Spanned, nearest};

/// What is reported, and whether that is a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    skip: Names,
    experimental: Names,
    /// `error=true`: any finding is a failure.
    pub error: bool,
}

/// `all` or some names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    All,
    Some(BTreeSet<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Names {
    fn read(list: &str) -> Self {
        if list == "all" {
            return Self::All;
        }
        Self::Some(list.split(',').map(|name| name.trim().to_owned()).collect())
    }

    fn has(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(rule.name()),
        }
    }
}

/// Why a text does not say what to check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No `=`, or a name that means nothing.
    #[error("`{part}` is no option of check: write skip=RULE,..., experimental=RULE,... or error=true")]
    Unknown {
        /// What was written.
        part: String,
    },
    /// `error=maybe`.
    #[error("`error={value}` is neither true nor false")]
    NotBool {
        /// What was written.
        value: String,
    },
}

impl Options {
    /// Reads a directive's value. Blanks end it, and there are three parts at most, as in the program.
    ///
    /// # Errors
    /// An option that is none.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let text = text.trim().split(' ').next().unwrap_or_default();
        let mut options = Self::default();
        for part in text.splitn(3, ';').filter(|_| !text.is_empty()) {
            let unknown = || OptionsError::Unknown { part: part.to_owned() };
            let (key, value) = part.split_once('=').ok_or_else(unknown)?;
            let value = value.trim();
            match key.trim() {
                "skip" => options.skip = Names::read(value),
                "experimental" => options.experimental = Names::read(value),
                "error" => {
                    options.error =
                        boolean(value).ok_or_else(|| OptionsError::NotBool { value: value.to_owned() })?;
                }
                _ => return Err(unknown()),
            }
        }
        Ok(options)
    }

    /// Returns what holds for a file: the build argument's word if it is given, else the directive's.
    ///
    /// # Errors
    /// An option that is none.
    pub fn of(file: &Dockerfile, build_arg: Option<&str>) -> Result<Self, Diagnostic> {
        let error = |message: String, span| Diagnostic {
            severity: Severity::Error,
            message,
            span,
            help: None,
            rule: None,
            fix: None,
        };
        let directive = file.directives.check.as_ref();
        let place = directive.map(|directive| directive.span).unwrap_or_default();
        match (build_arg, directive) {
            (Some(text), _) => Self::parse(text).map_err(|problem| {
                error(format!("build argument BUILDKIT_DOCKERFILE_CHECK: {problem}"), place)
            }),
            (None, Some(directive)) => {
                Self::parse(&directive.value).map_err(|problem| error(problem.to_string(), place))
            }
            (None, None) => Ok(Self::default()),
        }
    }

    /// Reads the first `check=` of the comments above an instruction. One that says nothing sensible counts as none.
    pub(super) fn of_comments(comments: &[Spanned<String>]) -> Option<Self> {
        let values = comments.iter().filter_map(|comment| {
            let (name, value) = comment.value.split_once('=')?;
            name.trim_end().eq_ignore_ascii_case("check").then(|| value.trim())
        });
        values.take(1).find_map(|value| Self::parse(value).ok())
    }

    /// Whether a rule's findings are reported where `above` holds too.
    pub(super) fn allows(&self, rule: Rule, above: Option<&Self>) -> bool {
        let any = |has: &dyn Fn(&Self) -> bool| has(self) || above.is_some_and(has);
        match rule.is_experimental() {
            true => any(&|options| options.experimental.has(rule)),
            false => !any(&|options| options.skip.has(rule)),
        }
    }

    /// Says which names are no rule's. The program takes them without a word.
    pub(super) fn unknown_names(&self) -> Vec<String> {
        let lists = [&self.skip, &self.experimental];
        let names = lists.into_iter().filter_map(|list| match list {
            Names::All => None,
            Names::Some(names) => Some(names),
        });
        names
            .flatten()
            .filter(|name| !name.is_empty() && Rule::of_name(name).is_none())
            .map(|name| {
                let near = nearest(name, Rule::ALL.iter().map(|rule| rule.name()));
                let advice = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
                format!("there is no check called `{name}`{advice}")
            })
            .collect()
    }
}

/// As Go reads one.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
