//! Writing the one file that an output is.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _};

use crate::Error;

/// Writes a file that appears whole or not at all; or standard output, or into what is there and is no file: a pipe, a
/// device. A link stays one.
pub(super) fn to_file(
    dest: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(dest) = dest else {
        let mut out = BufWriter::with_capacity(256 * 1024, std::io::stdout().lock());
        write(&mut out)?;
        return Ok(out.flush().at("write to", "standard output")?);
    };
    let Some(dest) = target(dest)? else {
        // Never renamed over: /dev/null would be gone.
        let pipe = File::options().write(true).open(dest).at("open", dest)?;
        let mut out = BufWriter::with_capacity(256 * 1024, pipe);
        write(&mut out)?;
        return Ok(out.flush().at("write to", dest)?);
    };
    let dest = dest.as_path();
    let dir = dest.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let half = tempfile::Builder::new().prefix(".kiln-").tempfile_in(dir).at("create a file in", dir)?;
    let mut out = BufWriter::with_capacity(256 * 1024, half);
    write(&mut out)?;
    out.flush().at("write", dest)?;
    let half = out.into_inner().map_err(|error| error.into_error()).at("write", dest)?;
    for_everybody(half.as_file(), dest)?;
    half.persist(dest).map_err(|error| error.error).at("create", dest)?;
    Ok(())
}

/// Returns the path of the file that appears, of a link what it leads to; none if there is something that is no file.
pub(super) fn target(dest: &Path) -> Result<Option<PathBuf>, IoError> {
    let there = std::fs::metadata(dest).ok().map(|meta| meta.file_type());
    match there {
        Some(kind) if !kind.is_file() && !kind.is_dir() => Ok(None),
        Some(_) => Ok(Some(std::fs::canonicalize(dest).at("find", dest)?)),
        None => Ok(Some(dest.to_owned())),
    }
}

/// Sets the mode that any program's output has: by the umask, not a temporary file's 0600.
pub(super) fn for_everybody(file: &File, path: &Path) -> Result<(), IoError> {
    let mode = 0o666 & !umask();
    rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(mode)).at("set mode of", path)
}

/// The umask can only be read by setting it; from /proc it can be read without a race.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o022)
}

/// Gathers small writes, such as an archive's headers and padding.
pub(super) fn buffered(
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut out = BufWriter::with_capacity(256 * 1024, out);
    write(&mut out)?;
    Ok(out.flush().at("write to", "the engine")?)
}
