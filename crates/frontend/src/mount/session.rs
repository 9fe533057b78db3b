//! Mounts that whoever builds brings along: secrets, and the socket of an ssh agent.

use kiln_core::{Mount, MountKind, SecretMount, SshMount};
use kiln_dockerfile::Diagnostic;

use super::options::Options;
use super::resolve;
use crate::diagnose::error;
use crate::state::StageState;

/// `type=secret`: a file, unless it is only wanted in a variable.
pub(super) fn secret(
    options: &Options,
    target: Option<&str>,
    state: &StageState,
) -> Result<Mount, Diagnostic> {
    let named = options.id.as_deref().or(options.source.as_deref());
    let id = match (named, target) {
        (Some(id), _) => id,
        (None, Some(target)) => basename(target),
        (None, None) => return Err(error(options.span, "a secret needs an id or a target: write `id=NAME`")),
    };
    if basename(id).is_empty() {
        return Err(error(options.span, format!("`{id}` names no secret")));
    }
    let target = match (target, &options.env) {
        (Some(target), _) => resolve(target, options, state)?,
        (None, None) => resolve(&format!("/run/secrets/{}", basename(id)), options, state)?,
        (None, Some(_)) => String::new(),
    };
    let kind = MountKind::Secret(SecretMount {
        id: id.to_owned(),
        env: options.env.clone(),
        required: options.required == Some(true),
        mode: options.mode.unwrap_or(0o400),
        uid: options.uid.unwrap_or(0),
        gid: options.gid.unwrap_or(0),
    });
    Ok(Mount { target, kind })
}

/// `type=ssh`: the runner sets SSH_AUTH_SOCK.
pub(super) fn ssh(
    options: &Options,
    target: Option<&str>,
    number: usize,
    state: &StageState,
) -> Result<Mount, Diagnostic> {
    let target = match target {
        Some(target) => resolve(target, options, state)?,
        None => format!("/run/buildkit/ssh_agent.{number}"),
    };
    let kind = MountKind::Ssh(SshMount {
        id: options.id.clone().unwrap_or_else(|| "default".to_owned()),
        required: options.required == Some(true),
        mode: options.mode.unwrap_or(0o600),
        uid: options.uid.unwrap_or(0),
        gid: options.gid.unwrap_or(0),
    });
    Ok(Mount { target, kind })
}

/// The last part of a path.
fn basename(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}
