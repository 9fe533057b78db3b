//! By tables, and by asking the kernel itself.

use super::Kind::{Group, User};
use super::*;

fn ids(real: u32, effective: u32, saved: u32, files: u32) -> Ids {
    Ids { real, effective, saved, files }
}

#[test]
fn changes_follow_credentials_7() {
    let root = Credentials::default();
    let ann = Credentials {
        user: ids(7, 7, 7, 7),
        group: ids(8, 8, 8, 8),
        groups: [3, 9].into(),
        ..Credentials::default()
    };
    let lowered = Credentials { user: ids(0, 7, 0, 7), ..root.clone() };
    for (from, change, expected) in [
        (&root, Change::One(User, 7), Ok(ids(7, 7, 7, 7))),
        (&root, Change::One(User, NONE), Err(Errno::INVAL)),
        (&ann, Change::One(User, 0), Err(Errno::PERM)),
        (&ann, Change::One(User, 7), Ok(ids(7, 7, 7, 7))),
        (&lowered, Change::One(User, 0), Ok(ids(0, 0, 0, 0))),
        (&lowered, Change::Three(User, [NONE, 0, NONE]), Ok(ids(0, 0, 0, 0))),
        (&lowered, Change::Three(User, [9, NONE, NONE]), Err(Errno::PERM)),
        (&root, Change::Three(User, [NONE, 7, NONE]), Ok(ids(0, 7, 0, 7))),
        (&root, Change::Two(User, [NONE, 7]), Ok(ids(0, 7, 7, 7))),
        (&root, Change::Two(User, [7, NONE]), Ok(ids(7, 0, 0, 0))),
        (&root, Change::Files(User, 7), Ok(ids(0, 0, 0, 7))),
        (&ann, Change::Files(User, 0), Ok(ids(7, 7, 7, 7))),
    ] {
        assert_eq!(from.changed(change.clone()).map(|new| new.user), expected, "{from:?} {change:?}");
    }
    assert_eq!(root.changed(Change::One(Group, 5)).unwrap().group, ids(5, 5, 5, 5));
    assert_eq!(*root.changed(Change::Groups(vec![5, 1, 5])).unwrap().groups, [1, 5, 5]);
    assert_eq!(ann.changed(Change::Groups(vec![])), Err(Errno::PERM));
    assert_eq!(root.changed(Change::Groups(vec![NONE])), Err(Errno::INVAL));
    assert_eq!(root.changed(Change::Groups(vec![0; MOST_GROUPS + 1])), Err(Errno::INVAL));
}

/// As setpriv(1) does it: the user first.
#[test]
fn who_keeps_capabilities_changes_groups_after_the_user() {
    let root = Credentials::default();
    let change = |from: &Credentials, change| from.changed(change).unwrap();
    let gone = change(&root, Change::Three(User, [7, 7, 7]));
    assert_eq!(gone.changed(Change::Groups(vec![1])), Err(Errno::PERM));
    let kept = change(&change(&root, Change::Keep(true)), Change::Three(User, [7, 7, 7]));
    let grouped = change(&change(&kept, Change::Three(Group, [8, 8, 8])), Change::Groups(vec![1]));
    assert_eq!((grouped.group, &*grouped.groups), (ids(8, 8, 8, 8), &[1][..]));
    let ran = grouped.executed(None, None);
    assert_eq!(ran.changed(Change::One(User, 0)), Err(Errno::PERM));
    // Who could come back has not given up anything yet.
    let lowered = change(&root, Change::Three(User, [NONE, 7, NONE]));
    assert!(!lowered.capable && lowered.changed(Change::Groups(vec![])).is_err());
}

#[test]
fn a_program_gives_its_owners_id() {
    let ann = Credentials { user: ids(7, 7, 0, 7), group: ids(8, 8, 8, 8), ..Credentials::default() };
    assert_eq!(ann.executed(None, None).user, ids(7, 7, 7, 7));
    assert_eq!(ann.executed(Some(0), None).user, ids(7, 0, 0, 0));
    assert_eq!(ann.executed(None, Some(4)).group, ids(8, 4, 4, 4));
}

#[test]
fn only_root_gives_files_away() {
    let root = Credentials::default();
    let ann = Credentials {
        user: ids(7, 7, 7, 7),
        group: ids(8, 8, 8, 8),
        groups: [3, 9].into(),
        ..Credentials::default()
    };
    for (who, owner, user, group, expected) in [
        (&root, (7, 8), Some(1), Some(2), true),
        (&ann, (7, 8), Some(1), None, false),
        (&ann, (7, 8), Some(7), None, true),
        (&ann, (7, 8), None, Some(9), true),
        (&ann, (7, 8), None, Some(8), true),
        (&ann, (7, 5), None, Some(5), true),
        (&ann, (7, 8), None, Some(5), false),
        (&ann, (1, 9), None, Some(9), false),
        (&ann, (1, 9), Some(7), None, false),
        (&ann, (1, 9), None, None, true),
    ] {
        assert_eq!(who.may_give(owner, user, group), expected, "{who:?} {owner:?} {user:?} {group:?}");
    }
}

#[test]
fn who_may_make_something_in_a_directory() {
    let ann = Credentials {
        user: ids(7, 7, 7, 7),
        group: ids(8, 8, 8, 8),
        groups: [3, 9].into(),
        ..Credentials::default()
    };
    for (owner, mode, expected) in [
        ((7, 0), 0o755, true),
        ((7, 0), 0o577, false),
        ((0, 8), 0o775, true),
        ((0, 9), 0o775, true),
        ((0, 9), 0o757, false),
        ((0, 0), 0o755, false),
        ((0, 0), 0o1777, true),
        ((0, 0), 0o776, false),
    ] {
        assert_eq!(ann.may_write(owner, mode), expected, "{owner:?} {mode:o}");
    }
    assert!(Credentials::default().may_write((7, 8), 0));
}

/// What the kernel says of this thread.
fn of_the_kernel() -> Credentials {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let numbers = |name: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    let four = |name| match numbers(name)[..] {
        [real, effective, saved, files] => ids(real, effective, saved, files),
        _ => panic!("{status}"),
    };
    Credentials {
        user: four("Uid:"),
        group: four("Gid:"),
        groups: numbers("Groups:").into(),
        ..Credentials::default()
    }
}

/// Random sequences of calls, by real threads as real root: ids are a thread's own for the kernel. A generator of
/// one's own makes the same sequences each time.
#[test]
fn the_kernel_agrees() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for sequence in 0..300 {
        let changes: Vec<Change> = (0..12)
            .map(|_| {
                let kind = if random(2) == 0 { User } else { Group };
                let mut id = || [0, 0, 5, 6, 7, NONE][usize::try_from(random(6)).unwrap()];
                let (a, b, c) = (id(), id(), id());
                match random(6) {
                    0 => Change::One(kind, a),
                    1 => Change::Two(kind, [a, b]),
                    2 | 3 => Change::Three(kind, [a, b, c]),
                    4 => Change::Files(kind, a),
                    _ => Change::Groups([a, b, c].into_iter().filter(|id| *id != NONE).collect()),
                }
            })
            .collect();
        let compare = move || {
            let mut ours = of_the_kernel();
            for (number, change) in changes.iter().enumerate() {
                let done = crate::sys::notify::change_really(change);
                let expected = ours.changed(change.clone());
                match (&done, &expected) {
                    (Ok(()), Ok(new)) => ours = new.clone(),
                    (Err(error), Err(errno)) => {
                        assert_eq!(
                            error.raw_os_error(),
                            Some(errno.raw_os_error()),
                            "{sequence}: {changes:?}"
                        );
                    }
                    _ => panic!("{sequence}, {number}: {done:?}, not {expected:?}: {ours:?} {changes:?}"),
                }
                assert_eq!(of_the_kernel(), ours, "{sequence}, {number}: {changes:?}");
            }
        };
        std::thread::spawn(compare).join().unwrap();
    }
}
