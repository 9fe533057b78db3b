//! `--ssh default|ID[=SOCKET]`, as buildx reads it; but of keys, kiln reads none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::config;
use crate::hints::Failure;

/// The id of an agent that was given without one.
const DEFAULT: &str = "default";

/// Finds the sockets that the flags name.
pub(crate) fn read(flags: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut agents = BTreeMap::new();
    for text in flags {
        let bad = |reason: String| Failure::usage(format!("--ssh {text}: {reason}"));
        let (id, path) = parse(text).map_err(bad)?;
        let path = match path {
            Some(path) => path,
            None => config::variable("SSH_AUTH_SOCK")
                .filter(|path| !path.is_empty())
                .map(|path| PathBuf::from(OsString::from_vec(path)))
                .ok_or_else(|| {
                    bad("SSH_AUTH_SOCK is not set: is an agent running? `eval $(ssh-agent)`".to_owned())
                })?,
        };
        let path = std::path::absolute(&path).map_err(|error| bad(error.to_string()))?;
        check(&path).map_err(bad)?;
        if agents.insert(id.clone(), path).is_some() {
            return Err(bad(format!("the id {id} was given before")));
        }
    }
    Ok(agents)
}

fn parse(text: &str) -> Result<(String, Option<PathBuf>), String> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { DEFAULT } else { id };
    if paths.contains(',') {
        return Err("one socket only; add keys to its agent with `ssh-add KEY`".to_owned());
    }
    Ok((id.to_owned(), (!paths.is_empty()).then(|| PathBuf::from(paths))))
}

fn check(path: &Path) -> Result<(), String> {
    let metadata =
        std::fs::metadata(path).map_err(|error| format!("cannot use {}: {error}", path.display()))?;
    if metadata.file_type().is_socket() {
        return Ok(());
    }
    Err(format!(
        "{path} is no socket of an agent; kiln reads no private keys: `ssh-add {path}` gives it to your agent, and \
         --ssh without a path gives that to steps",
        path = path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_sockets() {
        let rows = [
            ("default", "default", None),
            ("", "default", None),
            ("github", "github", None),
            ("github=", "github", None),
            ("github=/run/agent", "github", Some("/run/agent")),
            ("=/run/agent", "default", Some("/run/agent")),
            ("a=b=c", "a", Some("b=c")),
        ];
        for (text, id, path) in rows {
            assert_eq!(parse(text), Ok((id.to_owned(), path.map(PathBuf::from))), "{text}");
        }
        assert!(parse("a=k1,k2").unwrap_err().contains("ssh-add"));
    }

    #[test]
    fn a_key_is_refused_with_what_to_do() {
        let file = std::env::current_exe().unwrap();
        let error = check(&file).unwrap_err();
        assert!(error.contains("no private keys") && error.contains("ssh-add"), "{error}");
        assert!(check(Path::new("/nonexistent")).unwrap_err().contains("cannot use"));
    }
}
