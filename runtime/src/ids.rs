//! User and group ids: which rung of the ladder, and the maps that make it.

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Most lines a map may have (user_namespaces(7), Linux 4.15).
const MAX_RANGES: usize = 340;

/// SUB_UID_MIN of login.defs(5).
const SUB_ID_MIN: u32 = 100_000;

/// Which ids there are inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdMode {
    /// Real root: every id is itself.
    Root,
    /// Root of a user namespace that somebody else made, with a range of ids: a pod with `hostUsers: false`, a
    /// rootless container, `unshare --map-auto`.
    Mapped,
    /// An ordinary user with subordinate ids: 0 inside is the user, 1 and up are subordinate (subuid(5)).
    Subordinate {
        /// The user ids.
        uids: Vec<IdRange>,
        /// The group ids.
        gids: Vec<IdRange>,
    },
    /// One id: 0 inside is the user, and there is no other.
    Single,
}

/// A line of a map: user_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Reads the ranges of one user from /etc/subuid or /etc/subgid: `name:first:count` or `uid:first:count`, several
/// lines count together (subuid(5)).
pub(crate) fn subordinate_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let first: u32 = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let fits = count > 0 && first.checked_add(count).is_some() && fields.next().is_none();
            (fits && (Some(owner) == name || owner == number)).then_some((first, count))
        })
        .collect()
}

/// Returns the first id of a block of `count` that no line of /etc/subuid or /etc/subgid has, where useradd(8) would
/// begin to look: a range that two users share is no boundary between them.
pub(crate) fn free_block(texts: &[&str], count: u32) -> u32 {
    let ends = texts.iter().flat_map(|text| text.lines()).filter_map(|line| {
        let mut fields = line.trim().split(':').skip(1);
        let first: u32 = fields.next()?.parse().ok()?;
        let taken: u32 = fields.next()?.parse().ok()?;
        first.checked_add(taken).filter(|end| end.checked_add(count).is_some())
    });
    ends.max().unwrap_or(0).max(SUB_ID_MIN)
}

/// Makes the map: 0 inside is `own`, then the ranges one after the other. An id that two ranges share, or that is
/// `own`, is mapped once: the kernel refuses a map that names an id twice.
pub(crate) fn map_of(own: u32, ranges: &[(u32, u32)]) -> Vec<IdRange> {
    let mut map = vec![IdRange { inside: 0, outside: own, count: 1 }];
    let mut inside = 1;
    for &(first, count) in ranges {
        for (outside, count) in without_mapped(&map, first, count) {
            if map.len() == MAX_RANGES {
                return map;
            }
            map.push(IdRange { inside, outside, count });
            inside += count;
        }
    }
    map
}

/// Reads /proc/PID/uid_map or gid_map.
pub(crate) fn parse_map(text: &str) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(IdRange { inside: next()?, outside: next()?, count: next()? })
        })
        .collect()
}

/// Writes a map as the kernel takes it; every id that exists here is itself inside.
pub(crate) fn identity_of(map: &[IdRange]) -> String {
    map.iter().map(|range| format!("{0} {0} {1}\n", range.inside, range.count)).collect()
}

/// Writes a map for an idmapped mount, in which what is `disk` on disk is seen as `shown`: a line has the number on disk before the
/// one that is seen. Every other id of `map` is itself, but the two, which would be another's.
pub(crate) fn shown_as(map: &[IdRange], disk: u32, shown: u32) -> String {
    let mut lines = format!("{disk} {shown} 1\n");
    let (low, high) = (disk.min(shown), disk.max(shown));
    for range in map {
        let end = range.inside.saturating_add(range.count);
        let mut from = range.inside;
        for hole in [low, high] {
            if (from..end).contains(&hole) {
                if hole > from {
                    lines += &format!("{from} {from} {}\n", hole - from);
                }
                from = hole + 1;
            }
        }
        if from < end {
            lines += &format!("{from} {from} {}\n", end - from);
        }
    }
    lines
}

/// Writes a map as arguments for newuidmap(1).
pub(crate) fn map_arguments(map: &[IdRange]) -> Vec<String> {
    map.iter().flat_map(|range| [range.inside, range.outside, range.count]).map(|n| n.to_string()).collect()
}

/// Returns whether `id` exists inside.
pub(crate) fn contains(map: &[IdRange], id: u32) -> bool {
    map.iter().any(|range| id >= range.inside && id - range.inside < range.count)
}

/// Returns whether a map is the initial user namespace's.
pub(crate) fn is_everything(map: &[IdRange]) -> bool {
    matches!(map, [IdRange { inside: 0, outside: 0, count: u32::MAX }])
}

/// The parts of a range that the map does not have yet.
fn without_mapped(map: &[IdRange], first: u32, count: u32) -> Vec<(u32, u32)> {
    let mut parts = vec![(first, first + count)];
    for range in map {
        let (from, to) = (range.outside, range.outside.saturating_add(range.count));
        parts = parts
            .into_iter()
            .flat_map(|(start, end)| [(start, end.min(from)), (start.max(to), end)])
            .filter(|(start, end)| start < end)
            .collect();
    }
    parts.into_iter().map(|(start, end)| (start, end - start)).collect()
}
