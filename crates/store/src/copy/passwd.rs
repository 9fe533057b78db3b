//! Names to numbers, by the image's own /etc/passwd and /etc/group.

use std::io::Read;
use std::os::fd::BorrowedFd;

use kiln_core::{IoError, IoResultExt};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::CopyError;

/// A passwd file of more than this is not one.
const MAX_FILE: u64 = 16 << 20;

/// Returns what `--chown=user[:group]` (and WORKDIR's USER) means in an image, whose root is `view` (none for
/// scratch). A number alone is user and group; a name alone brings its group from /etc/passwd.
///
/// # Errors
/// A name that the image does not know.
pub fn lookup_owner(view: Option<BorrowedFd<'_>>, text: &str) -> Result<(u32, u32), CopyError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let bad = || CopyError::BadOwner { text: text.to_owned() };
    let (uid, default_gid) = match number(user) {
        _ if user.is_empty() && group.is_some() => (0, 0),
        Some(number) => (number, number),
        None if user.is_empty() => return Err(bad()),
        None => {
            let entry = entry(view, "/etc/passwd", user)?;
            (field(&entry, 2).ok_or_else(bad)?, field(&entry, 3).ok_or_else(bad)?)
        }
    };
    let gid = match group {
        None => default_gid,
        Some(group) => match number(group) {
            Some(number) => number,
            None if group.is_empty() => return Err(bad()),
            None => field(&entry(view, "/etc/group", group)?, 2).ok_or_else(bad)?,
        },
    };
    Ok((uid, gid))
}

fn number(text: &str) -> Option<u32> {
    // Not a sign: u32 would read "+1".
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn field(line: &str, number: usize) -> Option<u32> {
    line.split(':').nth(number)?.trim().parse().ok()
}

/// Returns the line of a name.
fn entry(view: Option<BorrowedFd<'_>>, file: &str, name: &str) -> Result<String, CopyError> {
    let text = match view {
        Some(view) => read(view, file)?,
        None => None,
    };
    let unknown =
        |file_missing| CopyError::UnknownName { name: name.to_owned(), file: file.to_owned(), file_missing };
    let text = text.ok_or_else(|| unknown(true))?;
    text.lines()
        .find(|line| line.split(':').next() == Some(name))
        .map(str::to_owned)
        .ok_or_else(|| unknown(false))
}

fn read(view: BorrowedFd<'_>, path: &str) -> Result<Option<String>, IoError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(view, path, flags, Mode::empty(), resolve) {
        Ok(fd) => {
            let mut bytes = Vec::new();
            std::fs::File::from(fd).take(MAX_FILE).read_to_end(&mut bytes).at("read", path)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error).at("read", path),
    }
}
