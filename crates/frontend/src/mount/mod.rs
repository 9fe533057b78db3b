//! `RUN --mount`.

mod options;
mod session;
mod value;

use kiln_core::{Bind, CacheMount, CacheScope, Mount, MountKind, StepId, Tmpfs};
use kiln_dockerfile::{Diagnostic, MountFlag, Spanned};

use crate::diagnose::{error, warning};
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
    let kind = field("type").unwrap_or("bind");
    if ["tmpfs", "secret", "ssh"].iter().any(|without| kind.eq_ignore_ascii_case(without)) {
        return None;
    }
    let from = field("from").filter(|from| !from.is_empty())?;
    Some(Spanned { value: from.to_owned(), span: flag.span })
}

/// Lowers one mount. `sockets` counts those of type ssh that come before it in the instruction.
pub(crate) fn mount(
    state: &StageState,
    flag: &MountFlag,
    sockets: usize,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<Mount, Diagnostic> {
    let options = Options::read(flag, |text| lowering.words.expand_text(text, flag.span, &state.env))?;
    warn_of_useless(&options, lowering);
    let given = options.target.as_deref().filter(|target| !target.is_empty());
    match options.kind() {
        Kind::Secret => return session::secret(&options, given, state),
        Kind::Ssh => return session::ssh(&options, given, sockets, state),
        Kind::Bind | Kind::Cache | Kind::Tmpfs => {}
    }
    let Some(target) = given else {
        return Err(error(options.span, "a mount needs a target: write `target=/path`"));
    };
    let target = resolve(target, &options, state)?;
    let kind = match options.kind() {
        Kind::Cache => MountKind::Cache(cache(&options, flag, &target, state, at, lowering)?),
        // Nobody can write to it, so it stays as empty as anything that has no files.
        Kind::Tmpfs if options.read_only == Some(true) => {
            MountKind::Bind(Bind { from: lowering.nothing(), path: "/".to_owned(), writable: false })
        }
        Kind::Tmpfs => MountKind::Tmpfs(Tmpfs { size: options.size.filter(|size| *size > 0) }),
        _ => MountKind::Bind(bind(&options, flag, at, lowering)?),
    };
    Ok(Mount { target, kind })
}

fn resolve(target: &str, options: &Options, state: &StageState) -> Result<String, Diagnostic> {
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
            None => lowering.nothing(),
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
    let id = match &lowering.settings.cache_namespace {
        Some(namespace) => format!("{namespace}/{id}"),
        None => id,
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
        ("id", options.id.is_some() && matches!(kind, Kind::Bind | Kind::Tmpfs)),
        ("from", options.from.is_some() && matches!(kind, Kind::Tmpfs | Kind::Ssh)),
        ("source", options.source.is_some() && kind == Kind::Tmpfs),
        ("rw", options.read_only == Some(false) && kind == Kind::Secret),
        ("ro", options.read_only == Some(true) && kind == Kind::Ssh),
    ];
    for (key, _) in useless.iter().filter(|(_, is)| *is) {
        let message = format!("`{key}` means nothing on a mount of type {}", kind.name());
        lowering.words.warnings.push(warning(options.span, message));
    }
}
