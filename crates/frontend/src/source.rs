//! What a name after FROM, `--from=` and `from=` stands for.

use kiln_core::{ImageRef, Platform};
use kiln_dockerfile::{Diagnostic, Span};

use crate::diagnose::{error, with_help};
use crate::{ImageRequest, LowerOptions, NamedContext};

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nothing.
    Scratch,
    /// An earlier stage, by number.
    Stage(usize),
    /// An image, or a named context that is one.
    Image(ImageRequest),
    /// A named context that is a directory.
    Files(String),
}

impl Source {
    /// Returns the named context that a name means, if one was given: it comes before stages and registries.
    pub(crate) fn of_context(name: &str, platform: &Platform, options: &LowerOptions) -> Option<Self> {
        if options.contexts.is_empty() || is_reserved(name) {
            return None;
        }
        let wanted = context_key(name);
        let (name, kind) = options.contexts.iter().find(|(given, _)| context_key(given) == wanted)?;
        Some(match kind {
            NamedContext::Files => Self::Files(name.clone()),
            NamedContext::Image => {
                Self::Image(ImageRequest { name: name.clone(), platform: platform.clone() })
            }
        })
    }

    /// Returns what a name means when it is neither a context nor a stage.
    pub(crate) fn of_image(name: &str, platform: &Platform, span: Span) -> Result<Self, Diagnostic> {
        if name == "scratch" {
            return Ok(Self::Scratch);
        }
        match name.parse::<ImageRef>() {
            Ok(_) => Ok(Self::Image(ImageRequest { name: name.to_owned(), platform: platform.clone() })),
            Err(problem) => {
                let lower = name.to_lowercase();
                let help = (lower != name && lower.parse::<ImageRef>().is_ok())
                    .then(|| format!("did you mean `{lower}`?"));
                Err(with_help(error(span, problem.to_string()), help))
            }
        }
    }
}

fn is_reserved(name: &str) -> bool {
    name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context")
}

/// `alpine`, `alpine:latest` and `docker.io/library/alpine` are the same context.
fn context_key(name: &str) -> String {
    let key = name.parse::<ImageRef>().map_or_else(|_| name.to_lowercase(), |image| image.familiar());
    key.strip_suffix(":latest").map(str::to_owned).unwrap_or(key)
}
