//! Names and what they mean.

use gix_hash::ObjectId;

/// A branch, a tag, HEAD, or another name that a repository gives to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ref {
    /// `HEAD`, `refs/heads/main`
    pub(crate) name: String,
    /// A commit, or the object of an annotated tag.
    pub(crate) id: ObjectId,
    /// What an annotated tag points to in the end.
    pub(crate) peeled: Option<ObjectId>,
    /// For HEAD: the branch it stands for.
    pub(crate) target: Option<String>,
}

/// The full names that a short one may mean, the first that there is wins. A branch goes before a tag of the same name,
/// as BuildKit has it; git itself does it the other way round.
pub(crate) fn candidates(reference: &str) -> Vec<String> {
    if reference == "HEAD" {
        return vec!["HEAD".to_owned()];
    }
    let under = |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference));
    let mut names = vec![under("refs/"), under("refs/heads/"), under("refs/tags/")];
    names.dedup();
    names
}

/// Finds what a name means; none means the default branch.
pub(crate) fn find<'a>(refs: &'a [Ref], reference: Option<&str>) -> Option<&'a Ref> {
    let by_name = |name: &str| refs.iter().find(|found| found.name == name);
    match reference {
        Some(reference) => candidates(reference).iter().find_map(|name| by_name(name)),
        None => by_name("HEAD"),
    }
}

/// Names that somebody may have meant, the likeliest first.
pub(crate) fn near(refs: &[Ref], reference: &str) -> Vec<String> {
    let short = |name: &str| -> Option<String> {
        let name = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/"))?;
        Some(crate::error::plain(name))
    };
    let wanted = short(reference).unwrap_or_else(|| reference.to_owned());
    let mut names: Vec<(usize, String)> = refs
        .iter()
        .filter_map(|found| short(&found.name))
        .map(|name| (distance(&wanted.to_lowercase(), &name.to_lowercase()), name))
        .collect();
    names.sort();
    names.dedup();
    // Of three names all may be told; of many only those that look like it.
    let few = names.len() <= 3;
    names
        .into_iter()
        .filter(|(far, _)| few || *far <= 1 + wanted.len() / 3)
        .take(3)
        .map(|(_, name)| name)
        .collect()
}

/// Edits from one text to the other; for names only, so cut at 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
