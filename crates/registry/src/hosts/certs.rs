//! Certificates that docker and podman are given for a host: `certs.d/HOST/*.crt`, `*.cert` with `*.key`.
//! <https://docs.docker.com/engine/security/certificates/>,
//! <https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md>

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The certificates of one directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Authorities, besides the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Certificate and key.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
    /// The directory.
    pub(crate) from: PathBuf,
}

/// Reads the first directory that there is for a host.
pub(crate) fn find(roots: &[PathBuf], host: &str) -> Result<Option<Certificates>, String> {
    for root in roots {
        let directory = root.join(host);
        match read(&directory) {
            Ok(found) => return found.map(Some),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            // As docker: what belongs to somebody else is not for us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(format!("{}: {error}", directory.display())),
        }
    }
    Ok(None)
}

fn read(directory: &Path) -> io::Result<Result<Certificates, String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut found = Certificates { from: directory.to_owned(), ..Certificates::default() };
    let ends = |path: &Path, with: &str| path.extension().is_some_and(|extension| extension == with);
    for file in &files {
        if ends(file, "crt") {
            found.ca.push(file.clone());
        } else if ends(file, "cert") {
            let key = file.with_extension("key");
            if !files.contains(&key) {
                return Ok(Err(format!("{} has no key: {} is not there", file.display(), key.display())));
            }
            found.client.push((file.clone(), key));
        } else if ends(file, "key") && !files.contains(&file.with_extension("cert")) {
            let certificate = file.with_extension("cert");
            return Ok(Err(format!(
                "{} has no certificate: {} is not there",
                file.display(),
                certificate.display()
            )));
        }
    }
    Ok(Ok(found))
}
