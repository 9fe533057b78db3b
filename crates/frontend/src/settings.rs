//! Settings of the program itself that come as build arguments.
//! <https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args>

use kiln_core::{ImageRef, Machine, Network};
use kiln_dockerfile::{Diagnostic, Dockerfile, Span};

use crate::LowerOptions;
use crate::diagnose::{error, warning};
use crate::mount::boolean;

/// What the settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// BUILDKIT_SANDBOX_HOSTNAME: what RUN's machine is called.
    pub(crate) hostname: Option<String>,
    /// BUILDKIT_CACHE_MOUNT_NS: goes before the id of every cache mount.
    pub(crate) cache_namespace: Option<String>,
    /// BUILDKIT_MULTI_PLATFORM: one platform's build looks like that of several.
    pub(crate) multi_platform: bool,
    /// The network of a RUN that says nothing of it.
    pub(crate) network: Network,
    /// The machine that RUN sees.
    pub(crate) machine: Machine,
}

impl Settings {
    /// Reads the settings. Those that concern others are left to them: BUILDKIT_CONTEXT_KEEP_GIT_DIR to whoever fetches
    /// the context, BUILDKIT_DOCKERFILE_CHECK to the checks. BUILDKIT_BUILD_NAME names a build in a list that kiln does
    /// not keep, and BUILDKIT_SBOM_SCAN_* qualify a scan that nobody can ask for.
    pub(crate) fn read(options: &LowerOptions) -> Result<Self, Diagnostic> {
        let text = |name: &str| options.build_args.get(name).filter(|value| !value.is_empty()).cloned();
        let multi_platform = match text("BUILDKIT_MULTI_PLATFORM") {
            None => false,
            Some(value) => boolean(&value).ok_or_else(|| {
                let message =
                    format!("the build argument BUILDKIT_MULTI_PLATFORM={value}: write true or false");
                error(Span::default(), message)
            })?,
        };
        Ok(Self {
            hostname: text("BUILDKIT_SANDBOX_HOSTNAME"),
            cache_namespace: text("BUILDKIT_CACHE_MOUNT_NS"),
            multi_platform,
            network: options.network,
            machine: options.machine.clone(),
        })
    }
}

/// Warns of what is asked for and has no effect.
pub(crate) fn without_effect(file: &Dockerfile, options: &LowerOptions) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if let Some(syntax) = &file.directives.syntax
        && !is_own_syntax(&syntax.value)
    {
        found.push(warning(syntax.span, format!("`{}`: {ONE_FRONTEND}", syntax.value)));
    }
    if let Some(syntax) = options.build_args.get("BUILDKIT_SYNTAX")
        && !is_own_syntax(syntax)
    {
        found.push(warning(Span::default(), format!("BUILDKIT_SYNTAX={syntax}: {ONE_FRONTEND}")));
    }
    let inline = options.build_args.get("BUILDKIT_INLINE_CACHE");
    if inline.is_some_and(|value| boolean(value) == Some(true)) {
        let message = "BUILDKIT_INLINE_CACHE has no effect: no cache is written into the image";
        found.push(warning(Span::default(), message));
    }
    found
}

const ONE_FRONTEND: &str = "kiln reads Dockerfiles itself and starts no other frontend";

/// Whether a frontend's image is the Dockerfile's own, from wherever it is fetched: `docker/dockerfile:1`,
/// `registry/mirror/docker/dockerfile-upstream:master-labs`. Options may follow.
fn is_own_syntax(syntax: &str) -> bool {
    let Some(image) = syntax.split_whitespace().next() else { return true };
    let Ok(image) = image.parse::<ImageRef>() else { return false };
    matches!(image.repository.rsplit('/').next(), Some("dockerfile" | "dockerfile-upstream"))
}
