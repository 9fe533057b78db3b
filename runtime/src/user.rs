//! Who a step runs as: `user[:group]` looked up in the image's own /etc/passwd and /etc/group.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use crate::error::UserError;
use crate::ids::IdMode;

#[cfg(test)]
mod tests;

/// A user, looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// The home directory, `/` where the passwd file has none.
    pub(crate) home: String,
}

/// Highest id docker accepts.
const MAX_ID: u32 = i32::MAX.cast_unsigned();

/// A file of users of more bytes than this is not one.
const MAX_FILE: u64 = 16 << 20;

/// Reads one of the image's files of users; the process is in the step's root. An image without them has only numeric
/// users, and so has one whose "file" is a fifo, a device or something of the kernel's that would not end, or never
/// come: whoever made the image chose what is there.
pub(crate) fn read(path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = loop {
        match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
            // Something was renamed meanwhile, anywhere on the machine: openat2(2).
            Err(Errno::AGAIN) => {}
            other => break other?,
        }
    };
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL.into());
    }
    let mut text = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Looks up `user[:group]`, names or numbers; empty for root. With a group there is only that group; without, the
/// user's own from `passwd` (0 where it has none) and those that list the user.
pub(crate) fn look_up(wanted: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = number(name);
    let entry =
        passwd.lines().filter_map(Entry::parse).find(|entry| entry.name == name || Some(entry.uid) == number);
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(UserError::UnknownUser { name: name.to_owned() }),
    };
    let home =
        entry.as_ref().map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    if let Some(group_name) = group_name {
        let gid = group_id(group_name, group)?;
        return Ok(User { uid, gid, groups: Vec::new(), home });
    }
    let groups = entry.as_ref().map_or_else(Vec::new, |entry| groups_of(entry.name, group));
    Ok(User { uid, gid: entry.map_or(0, |entry| entry.gid), groups, home })
}

/// Refuses ids that the ladder's rung does not have, where nobody answers system calls in its place.
pub(crate) fn check(user: &User, wanted: &str, ids: &IdMode) -> Result<(), UserError> {
    let (uid, gid) = (user.uid, user.gid);
    match ids {
        IdMode::Root | IdMode::Mapped => Ok(()),
        IdMode::Single if uid == 0 && gid == 0 => Ok(()),
        IdMode::Single => Err(UserError::SingleId { user: wanted.to_owned(), uid, gid }),
        IdMode::Subordinate { uids, gids } => {
            if crate::ids::contains(uids, uid) && crate::ids::contains(gids, gid) {
                return Ok(());
            }
            Err(UserError::OutOfRange { user: wanted.to_owned(), uid, gid })
        }
    }
}

/// Finds a user's name in a passwd file.
pub(crate) fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().filter_map(Entry::parse).find(|entry| entry.uid == uid).map(|entry| entry.name)
}

/// A line of passwd(5).
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, rest @ ..] = fields.as_slice() else { return None };
        Some(Self { name, uid: number(uid)?, gid: number(gid)?, home: rest.get(1).copied().unwrap_or("") })
    }
}

fn group_id(wanted: &str, group: &str) -> Result<u32, UserError> {
    let by_name = group.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&wanted)).then(|| number(fields.get(2)?)).flatten()
    });
    by_name.or_else(|| number(wanted)).ok_or_else(|| UserError::UnknownGroup { name: wanted.to_owned() })
}

fn groups_of(name: &str, group: &str) -> Vec<u32> {
    group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            fields.get(3)?.split(',').any(|member| member == name).then(|| number(fields.get(2)?)).flatten()
        })
        .collect()
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id <= MAX_ID && text.bytes().all(|byte| byte.is_ascii_digit()))
}
