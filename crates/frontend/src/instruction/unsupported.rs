//! What the reference has and kiln has not yet: refused with its place, never ignored.

use kiln_dockerfile::{Copy, Diagnostic, Flag, Healthcheck, Instruction, Located, MountFlag, Run, Span};

use crate::diagnose::unsupported;
use crate::mount::boolean;

/// Returns what an instruction has that cannot be built, all of it: known before any image is asked for.
pub(crate) fn refusals(located: &Located<Instruction>) -> Vec<Diagnostic> {
    match &located.value {
        Instruction::Add(copy) => vec![add(copy, located.span)],
        Instruction::Healthcheck(check) => vec![healthcheck(check, located.span)],
        Instruction::Onbuild(trigger) => vec![onbuild(trigger, located.span)],
        Instruction::Copy(copy) => copy_flags(copy),
        Instruction::Run(run) => run_flags(run),
        _ => Vec::new(),
    }
}

/// `ADD`.
pub(crate) fn add(_: &Copy, span: Span) -> Diagnostic {
    let message = unsupported(span, "ADD");
    Diagnostic { help: Some("for files of the build context write `COPY`".to_owned()), ..message }
}

/// `HEALTHCHECK`.
pub(crate) fn healthcheck(_: &Healthcheck, span: Span) -> Diagnostic {
    unsupported(span, "HEALTHCHECK")
}

/// `ONBUILD`.
pub(crate) fn onbuild(_: &Instruction, span: Span) -> Diagnostic {
    unsupported(span, "ONBUILD")
}

/// `COPY --link`, `--parents`, `--exclude`.
pub(super) fn copy_flags(copy: &Copy) -> Vec<Diagnostic> {
    copy.flags.iter().filter(|flag| !is_off(flag)).map(|flag| refuse("COPY", flag)).collect()
}

/// `RUN --security`, `--device`, mounts of type secret and ssh.
pub(super) fn run_flags(run: &Run) -> Vec<Diagnostic> {
    let security = run.security.iter().map(|flag| unsupported(flag.span, "RUN --security"));
    let flags = run.flags.iter().map(|flag| refuse("RUN", flag));
    security.chain(flags).chain(run.mounts.iter().filter_map(mount_type)).collect()
}

/// A type that a variable gives is refused when it is known.
fn mount_type(flag: &MountFlag) -> Option<Diagnostic> {
    let (_, kind) = flag.fields.iter().rfind(|(key, _)| key == "type")?;
    let kind = kind.as_deref()?.to_ascii_lowercase();
    matches!(kind.as_str(), "secret" | "ssh")
        .then(|| unsupported(flag.span, &format!("a mount of type {kind}")))
}

/// `--link=false` asks for what is done anyway.
fn is_off(flag: &Flag) -> bool {
    matches!(flag.name.as_str(), "link" | "parents")
        && flag.value.as_deref().is_some_and(|value| boolean(value) == Some(false))
}

fn refuse(instruction: &str, flag: &Flag) -> Diagnostic {
    unsupported(flag.span, &format!("{instruction} --{}", flag.name))
}
