//! `RUN --mount`.

mod options;
mod value;

use kiln_core::{Bind, CacheMount, CacheScope, Mount, MountKind, StepId, Tmpfs};
use kiln_dockerfile::{Diagnostic, MountFlag, Spanned};

use crate::diagnose::{error, unsupported, warning};
use crate::lowering::Lowering;
use crate::path;
use crate::place::Place;
use crate::source::Source;
use crate::state::StageState;
use options::{Kind, Options};

pub(crate) use value::boolean;

/// Returns the name that a mount takes files from, if it takes any.
pub(crate) fn source_name(flag: &MountFlag) -> Option<Spanned<String>> {
    let field = |wanted: &str| {
        let all = flag.fields.iter().filter(|(key, _)| key == wanted);
        all.filter_map(|(_, value)| value.as_deref()).next_back()
    };
    if field("type").is_some_and(|kind| kind.eq_ignore_ascii_case("tmpfs")) {
        return None;
    }
    let from = field("from").filter(|from| !from.is_empty())?;
    Some(Spanned { value: from.to_owned(), span: flag.span })
}

/// Lowers one mount.
pub(crate) fn mount(
    state: &StageState,
    flag: &MountFlag,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<Mount, Diagnostic> {
    let options = Options::read(flag, |text| lowering.words.expand_text(text, flag.span, &state.env))?;
    warn_of_useless(&options, lowering);
    let target = target(&options, state)?;
    let kind = match options.kind() {
        Kind::Bind => MountKind::Bind(bind(&options, flag, at, lowering)?),
        Kind::Cache => MountKind::Cache(cache(&options, flag, &target, state, at, lowering)?),
        Kind::Tmpfs => MountKind::Tmpfs(Tmpfs { size: options.size.filter(|size| *size > 0) }),
    };
    Ok(Mount { target, kind })
}

fn target(options: &Options, state: &StageState) -> Result<String, Diagnostic> {
    let Some(target) = options.target.as_deref().filter(|target| !target.is_empty()) else {
        return Err(error(options.span, "a mount needs a target: write `target=/path`"));
    };
    let target = path::resolve(state.cwd(), target);
    if target == "/" {
        return Err(error(options.span, "nothing can be mounted on `/`"));
    }
    Ok(target)
}

fn bind(
    options: &Options,
    flag: &MountFlag,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<Bind, Diagnostic> {
    let from = match source_name(flag) {
        None => lowering.main_context(),
        Some(name) => match files(&name, at, lowering)? {
            Some(step) => step,
            None => return Err(unsupported(flag.span, "a bind mount of an image or stage without files")),
        },
    };
    let path = path::resolve("/", options.source.as_deref().unwrap_or("/"));
    Ok(Bind { from, path, writable: options.read_only == Some(false) })
}

fn cache(
    options: &Options,
    flag: &MountFlag,
    target: &str,
    state: &StageState,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<CacheMount, Diagnostic> {
    let source = path::resolve("/", options.source.as_deref().unwrap_or("/"));
    let seed = match source_name(flag) {
        Some(name) => files(&name, at, lowering)?.map(|step| (step, source)),
        None if source != "/" => {
            return Err(error(
                flag.span,
                "`source` on a cache mount needs `from`: it says what a new cache starts with",
            ));
        }
        None => None,
    };
    let (id, scope) = match &options.id {
        Some(id) => (id.clone(), CacheScope::Global),
        None => (target.to_owned(), CacheScope::Platform(state.platform.to_string())),
    };
    Ok(CacheMount {
        id,
        scope,
        sharing: options.sharing.unwrap_or_default(),
        mode: options.mode.unwrap_or(0o755),
        uid: options.uid.unwrap_or(0),
        gid: options.gid.unwrap_or(0),
        seed,
        read_only: options.read_only == Some(true),
    })
}

/// The step whose files a name stands for; none if it has none.
fn files(
    name: &Spanned<String>,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<Option<StepId>, Diagnostic> {
    match lowering.stages.find(name, at.stage)? {
        Source::Scratch => Ok(None),
        source => lowering.files(&source, name.span),
    }
}

/// The program takes these without a word.
fn warn_of_useless(options: &Options, lowering: &mut Lowering<'_>) {
    let kind = options.kind();
    let useless = [
        ("id", options.id.is_some() && kind != Kind::Cache),
        ("from", options.from.is_some() && kind == Kind::Tmpfs),
        ("source", options.source.is_some() && kind == Kind::Tmpfs),
    ];
    for (key, _) in useless.iter().filter(|(_, is)| *is) {
        let message = format!("`{key}` means nothing on a mount of type {}", kind.name());
        lowering.words.warnings.push(warning(options.span, message));
    }
}
