//! `--ssh default|ID[=SOCKET|KEY[,KEY]]`, as buildx reads it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use kiln::{Secret, SshAgent, check_ssh_key};

use crate::config;
use crate::hints::Failure;

/// The id of an agent that was given without one.
const DEFAULT: &str = "default";

/// Finds the sockets and reads the keys that the flags name.
pub(crate) fn read(flags: &[String]) -> Result<BTreeMap<String, SshAgent>, Failure> {
    let mut agents = BTreeMap::new();
    for text in flags {
        let bad = |reason: String| Failure::usage(format!("--ssh {text}: {reason}"));
        let (id, mut paths) = parse(text);
        if paths.is_empty() {
            let socket = config::variable("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
            let socket = socket.ok_or_else(|| {
                bad("SSH_AUTH_SOCK is not set: is an agent running? `eval $(ssh-agent)`".to_owned())
            })?;
            paths.push(PathBuf::from(OsString::from_vec(socket)));
        }
        if agents.insert(id.clone(), agent(&paths).map_err(bad)?).is_some() {
            return Err(bad(format!("the id {id} was given before")));
        }
    }
    Ok(agents)
}

fn parse(text: &str) -> (String, Vec<PathBuf>) {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { DEFAULT } else { id };
    (id.to_owned(), paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect())
}

/// One socket, or keys.
fn agent(paths: &[PathBuf]) -> Result<SshAgent, String> {
    let mut keys = Vec::new();
    for path in paths {
        let cannot = |error: &dyn std::fmt::Display| format!("cannot use {}: {error}", path.display());
        let metadata = std::fs::metadata(path).map_err(|error| cannot(&error))?;
        if !metadata.file_type().is_socket() {
            keys.push(key(path).map_err(|error| cannot(&error))?);
        } else if paths.len() == 1 {
            let path = std::path::absolute(path).map_err(|error| cannot(&error))?;
            return Ok(SshAgent::Socket(path));
        } else {
            return Err(format!("{} is a socket: give one socket, or keys", path.display()));
        }
    }
    Ok(SshAgent::Keys(keys))
}

fn key(path: &Path) -> Result<Secret, Box<dyn std::error::Error>> {
    // As long as it may be and a byte: then it is refused, whatever size it claims to have (a pipe claims none).
    let mut bytes = Vec::with_capacity(Secret::MAX + 1);
    File::open(path)?.take(Secret::MAX as u64 + 1).read_to_end(&mut bytes)?;
    let key = Secret::new(bytes)?;
    check_ssh_key(&key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_paths() {
        let rows: [(&str, &str, &[&str]); 8] = [
            ("default", "default", &[]),
            ("", "default", &[]),
            ("github", "github", &[]),
            ("github=", "github", &[]),
            ("github=/run/agent", "github", &["/run/agent"]),
            ("=/run/agent", "default", &["/run/agent"]),
            ("a=b=c", "a", &["b=c"]),
            ("a=k1,k2", "a", &["k1", "k2"]),
        ];
        for (text, id, paths) in rows {
            assert_eq!(parse(text), (id.to_owned(), paths.iter().map(PathBuf::from).collect()), "{text}");
        }
    }

    #[test]
    fn what_is_neither_socket_nor_key_says_so() {
        let error = agent(&[std::env::current_exe().unwrap()]).unwrap_err();
        assert!(error.contains("cannot use") && error.contains("larger than 500 KiB"), "{error}");
        assert!(agent(&["/nonexistent".into()]).unwrap_err().contains("cannot use"));
        assert!(agent(&["/dev/null".into()]).unwrap_err().contains("no private key"));
    }
}
