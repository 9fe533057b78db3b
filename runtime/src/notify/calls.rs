//! What a call's number means, by the way the kernel is called.

use super::Answers;
use super::credentials::Kind;
use super::layout::Layout;
use super::listing::Dirent;
use crate::seccomp;

/// One of the calls that kiln answers, with what tells its variants apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Chown {
        follow: bool,
    },
    Fchown,
    Fchownat,
    Mknod,
    Mknodat,
    Mkdir,
    Mkdirat,
    Symlink,
    Symlinkat,
    Creat,
    Open,
    Openat,
    Openat2,
    Stat {
        follow: bool,
        layout: Layout,
    },
    Fstat(Layout),
    Fstatat(Layout),
    Statx,
    /// The real or effective id.
    Get {
        kind: Kind,
        effective: bool,
    },
    GetThree(Kind),
    GetGroups,
    SetOne(Kind),
    SetTwo(Kind),
    SetThree(Kind),
    SetFiles(Kind),
    SetGroups,
    Execve,
    Execveat,
    Chroot,
    Keep,
    /// Of the file locks; with this as "unlimited", in so many bytes.
    GetLimit {
        unlimited: u64,
        width: usize,
    },
    SetLimit,
    Prlimit,
    List(Dirent),
}

/// A call and the width of its ids: 16 bits in the oldest calls of 32-bit programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) call: Call,
    pub(crate) narrow: bool,
}

/// The calls by their numbers, for each way to call the kernel.
pub(crate) struct Calls(Vec<(u32, Vec<Option<Known>>)>);

impl Calls {
    pub(crate) fn new(answers: Answers) -> Self {
        let mut machines: Vec<(u32, Vec<Option<Known>>)> = Vec::new();
        for notified in seccomp::notified(answers) {
            let at = machines.iter().position(|(audit, _)| *audit == notified.audit).unwrap_or_else(|| {
                machines.push((notified.audit, vec![None; 512]));
                machines.len() - 1
            });
            if let Some(place) = machines[at].1.get_mut(notified.number as usize) {
                *place = parse(notified.name, notified.audit);
            }
        }
        Self(machines)
    }

    pub(crate) fn find(&self, audit: u32, number: i32) -> Option<Known> {
        let (_, calls) = self.0.iter().find(|(known, _)| *known == audit)?;
        *calls.get(usize::try_from(number).ok()?)?
    }
}

fn parse(name: &str, audit: u32) -> Option<Known> {
    let is_64_bit = audit & 0x8000_0000 != 0;
    let (base, wide) = match name.strip_suffix("32") {
        Some(base) => (base, true),
        None => (name, is_64_bit),
    };
    let call = match base {
        "chown" => Call::Chown { follow: true },
        "lchown" => Call::Chown { follow: false },
        "fchown" => Call::Fchown,
        "setgroups" => Call::SetGroups,
        "getgroups" => Call::GetGroups,
        _ => match of_ids(base) {
            Some(call) => call,
            // The others know no narrow ids.
            None => return Some(Known { call: other(name, audit)?, narrow: false }),
        },
    };
    Some(Known { call, narrow: !wide })
}

/// `setresuid` and the like.
fn of_ids(name: &str) -> Option<Call> {
    let (verb, kind) = match name.strip_suffix("uid") {
        Some(verb) => (verb, Kind::User),
        None => (name.strip_suffix("gid")?, Kind::Group),
    };
    Some(match verb {
        "get" => Call::Get { kind, effective: false },
        "gete" => Call::Get { kind, effective: true },
        "getres" => Call::GetThree(kind),
        "set" => Call::SetOne(kind),
        "setre" => Call::SetTwo(kind),
        "setres" => Call::SetThree(kind),
        "setfs" => Call::SetFiles(kind),
        _ => return None,
    })
}

fn other(name: &str, audit: u32) -> Option<Call> {
    let is_64_bit = audit & 0x8000_0000 != 0;
    let layout = |large| Layout::of(audit, large);
    Some(match name {
        "fchownat" => Call::Fchownat,
        "mknod" => Call::Mknod,
        "mknodat" => Call::Mknodat,
        "mkdir" => Call::Mkdir,
        "mkdirat" => Call::Mkdirat,
        "symlink" => Call::Symlink,
        "symlinkat" => Call::Symlinkat,
        "creat" => Call::Creat,
        "open" => Call::Open,
        "openat" => Call::Openat,
        "openat2" => Call::Openat2,
        "stat" => Call::Stat { follow: true, layout: layout(false) },
        "stat64" => Call::Stat { follow: true, layout: layout(true) },
        "lstat" => Call::Stat { follow: false, layout: layout(false) },
        "lstat64" => Call::Stat { follow: false, layout: layout(true) },
        "fstat" => Call::Fstat(layout(false)),
        "fstat64" => Call::Fstat(layout(true)),
        "newfstatat" => Call::Fstatat(layout(false)),
        "fstatat64" => Call::Fstatat(layout(true)),
        "statx" => Call::Statx,
        "execve" => Call::Execve,
        "execveat" => Call::Execveat,
        "chroot" => Call::Chroot,
        "prctl" => Call::Keep,
        "getrlimit" if is_64_bit => Call::GetLimit { unlimited: u64::MAX, width: 8 },
        "getrlimit" => Call::GetLimit { unlimited: 0x7fff_ffff, width: 4 },
        "ugetrlimit" => Call::GetLimit { unlimited: 0xffff_ffff, width: 4 },
        "setrlimit" => Call::SetLimit,
        "prlimit64" => Call::Prlimit,
        "getdents64" => Call::List(Dirent::Fixed),
        "getdents" if is_64_bit => Call::List(Dirent::Long),
        "getdents" => Call::List(Dirent::Short),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use kiln_core::DirectoryOrder;

    use super::*;

    const ALL: Answers = Answers { ids: true, order: Some(DirectoryOrder::Reversed) };

    #[test]
    fn each_name_is_known() {
        let calls = Calls::new(ALL);
        let all = seccomp::notified(ALL);
        assert!(all.len() > 80, "{}", all.len());
        for notified in all {
            let number = i32::try_from(notified.number).unwrap();
            let known = calls.find(notified.audit, number);
            assert!(known.is_some(), "{notified:?}");
        }
        assert_eq!(calls.find(0, 0), None);
    }

    #[test]
    fn the_old_calls_of_32_bit_programs_have_narrow_ids() {
        let all = seccomp::notified(ALL);
        let of = |name: &str, wide: bool| {
            let found = all.iter().find(|call| call.name == name && (call.audit & 0x8000_0000 != 0) == wide);
            found.and_then(|call| Calls::new(ALL).find(call.audit, i32::try_from(call.number).unwrap()))
        };
        for (name, native, compat) in [
            ("setresuid", Some(false), Some(true)),
            ("setresuid32", None, Some(false)),
            ("fchownat", Some(false), Some(false)),
        ] {
            assert_eq!(of(name, true).map(|known| known.narrow), native, "{name}");
            assert_eq!(of(name, false).map(|known| known.narrow), compat, "{name}");
        }
    }
}
