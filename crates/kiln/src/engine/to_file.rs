//! Writing the one file that an output is.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use kiln_core::IoResultExt as _;

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
    let there = std::fs::metadata(dest).ok().map(|meta| meta.file_type());
    if there.is_some_and(|kind| !kind.is_file() && !kind.is_dir()) {
        // Never renamed over: /dev/null would be gone.
        let pipe = File::options().write(true).open(dest).at("open", dest)?;
        let mut out = BufWriter::with_capacity(256 * 1024, pipe);
        write(&mut out)?;
        return Ok(out.flush().at("write to", dest)?);
    }
    let real = if there.is_some() { std::fs::canonicalize(dest).at("find", dest)? } else { dest.to_owned() };
    let dest = real.as_path();
    let dir = dest.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let half = tempfile::Builder::new().prefix(".kiln-").tempfile_in(dir).at("create a file in", dir)?;
    let mut out = BufWriter::with_capacity(256 * 1024, half);
    write(&mut out)?;
    out.flush().at("write", dest)?;
    let half = out.into_inner().map_err(|error| error.into_error()).at("write", dest)?;
    // As any program's output: by the umask, not a temporary file's 0600.
    let mode = 0o666 & !umask();
    rustix::fs::fchmod(half.as_file(), rustix::fs::Mode::from_raw_mode(mode)).at("set mode of", dest)?;
    half.persist(dest).map_err(|error| error.error).at("create", dest)?;
    Ok(())
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
