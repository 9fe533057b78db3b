//! Where two layers differ.

use std::collections::BTreeMap;
use std::io::{self, Read};

use kiln_core::{Digest, DigestHasher, IoError};
use serde::{Deserialize, Serialize};

use super::advice::advice;
use crate::Error;

/// A path that two layers have differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathDifference {
    /// The path, with a slash at its start.
    pub path: String,
    /// What of it: `type`, `mode`, `uid`, `gid`, `mtime`, `link`, `device`, `content`, `order`, the name of an extended attribute,
    /// or `path` if only one of the layers has it.
    pub field: String,
    /// In the first; empty if it is not there.
    pub first: String,
    /// In the other.
    pub other: String,
    /// Why such a path differs and what helps, where that is known: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl PathDifference {
    /// As many are told of.
    pub const MOST: usize = 10;

    fn new(path: &[u8], (field, first, other): (&str, String, String)) -> Self {
        // What makes content differ is seen by where it does.
        let at = first.strip_prefix("byte ").and_then(|rest| rest.split(':').next()?.parse().ok());
        let advice = advice(path, field, at);
        let path = format!("/{}", String::from_utf8_lossy(path));
        Self { path, field: field.to_owned(), first, other, advice }
    }
}

/// Opens one of the tars, as often as it is needed.
type Open<'a> = dyn Fn() -> Result<Box<dyn Read>, Error> + 'a;

/// What a tar says of a path.
struct Entry {
    /// Its place in the tar.
    place: usize,
    /// By name, in the order in which they are worth telling.
    fields: Vec<(String, String)>,
    content: Digest,
    /// Of the content, in bytes.
    size: u64,
}

/// Returns every path that differs, by its first field, in the order of their names.
pub(super) fn differences(first: &Open<'_>, other: &Open<'_>) -> Result<Vec<PathDifference>, Error> {
    let (ours, theirs) = (entries(first()?)?, entries(other()?)?);
    let mut found = Vec::new();
    for (path, entry) in &ours {
        match theirs.get(path) {
            None => found.push(only(path, entry, true)),
            Some(theirs) => {
                if let Some((field, first, other)) = field(entry, theirs) {
                    found.push(PathDifference::new(path, (&field, first, other)));
                } else if entry.content != theirs.content {
                    let (mut mine, mut its) = contents(path, first, other)?;
                    if entry.size != theirs.size {
                        mine += &format!(" ({} bytes)", entry.size);
                        its += &format!(" ({} bytes)", theirs.size);
                    }
                    found.push(PathDifference::new(path, ("content", mine, its)));
                }
            }
        }
    }
    for (path, entry) in theirs.iter().filter(|(path, _)| !ours.contains_key(*path)) {
        found.push(only(path, entry, false));
    }
    if found.is_empty()
        && let Some((path, first, other)) = moved(&ours, &theirs)
    {
        found.push(PathDifference::new(path, ("order", first, other)));
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn only(path: &[u8], entry: &Entry, in_first: bool) -> PathDifference {
    let kind = entry.fields.first().map_or_else(String::new, |(_, kind)| kind.clone());
    let (first, other) = if in_first { (kind, String::new()) } else { (String::new(), kind) };
    PathDifference::new(path, ("path", first, other))
}

/// The first field that differs.
fn field(ours: &Entry, theirs: &Entry) -> Option<(String, String, String)> {
    let get = |entry: &Entry, name: &str| {
        entry
            .fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    };
    let names = ours.fields.iter().chain(&theirs.fields).map(|(name, _)| name);
    names
        .map(|name| (name.clone(), get(ours, name), get(theirs, name)))
        .find(|(_, first, other)| first != other)
}

/// The first path that stands elsewhere.
fn moved<'e>(
    ours: &'e BTreeMap<Vec<u8>, Entry>,
    theirs: &BTreeMap<Vec<u8>, Entry>,
) -> Option<(&'e [u8], String, String)> {
    let mut places: Vec<_> = ours.iter().map(|(path, entry)| (entry.place, path)).collect();
    places.sort_unstable();
    let (place, path) =
        places.into_iter().find(|(place, path)| theirs.get(*path).is_some_and(|e| e.place != *place))?;
    let there = theirs.get(path)?.place;
    Some((path, place.to_string(), there.to_string()))
}

/// Reads all of a tar but keeps no content.
fn entries(tar: Box<dyn Read>) -> Result<BTreeMap<Vec<u8>, Entry>, Error> {
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    let all = archive.entries().map_err(broken)?;
    for (place, entry) in all.enumerate() {
        let mut entry = entry.map_err(broken)?;
        let mut fields =
            vec![("type".to_owned(), format!("{:?}", entry.header().entry_type()).to_lowercase())];
        let header = entry.header();
        let number =
            |value: io::Result<u64>| value.map_or_else(|_| "no number".to_owned(), |value| value.to_string());
        fields.push((
            "mode".to_owned(),
            header.mode().map_or_else(|_| "no number".to_owned(), |mode| format!("{mode:04o}")),
        ));
        fields.push(("uid".to_owned(), number(header.uid())));
        fields.push(("gid".to_owned(), number(header.gid())));
        fields.push(("mtime".to_owned(), number(header.mtime())));
        if let Some(link) = entry.link_name_bytes() {
            fields.push(("link".to_owned(), String::from_utf8_lossy(&link).into_owned()));
        }
        let device = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
        let device = (device(header.device_major()), device(header.device_minor()));
        fields.push(("device".to_owned(), format!("{}:{}", device.0, device.1)));
        for extension in entry.pax_extensions().map_err(broken)?.into_iter().flatten().flatten() {
            let key = String::from_utf8_lossy(extension.key_bytes()).into_owned();
            // Names stand in the entry already.
            if key != "path" && key != "linkpath" {
                let key = key.strip_prefix("SCHILY.xattr.").map_or(key.clone(), str::to_owned);
                fields.push((key, extension.value_bytes().escape_ascii().to_string()));
            }
        }
        let (path, size) = (entry.path_bytes().into_owned(), entry.size());
        let mut hasher = DigestHasher::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match entry.read(&mut buffer).map_err(broken)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        found.insert(path, Entry { place, fields, content: hasher.finish(), size });
    }
    Ok(found)
}

/// Bytes around the first that differs, for each. Two pieces of each file are in memory, whatever its size.
fn contents(path: &[u8], first: &Open<'_>, other: &Open<'_>) -> Result<(String, String), Error> {
    /// Bytes shown of each.
    const SHOWN: usize = 40;
    /// Of these, before the difference.
    const BEFORE: usize = 12;
    /// Bytes shown of what is no text, all from the difference on.
    const NO_TEXT: usize = 12;
    let (mut ours, mut theirs) = (tar::Archive::new(first()?), tar::Archive::new(other()?));
    let (mut ours, mut theirs) = (find(&mut ours, path)?, find(&mut theirs, path)?);
    let (mut past, mut before) = (0, Vec::new());
    loop {
        let (mine, its) = (piece(&mut ours)?, piece(&mut theirs)?);
        let same = mine.iter().zip(&its).position(|(a, b)| a != b);
        let at = same.unwrap_or(mine.len().min(its.len()));
        if same.is_some() || mine.len() != its.len() || mine.is_empty() {
            let around = |bytes: &[u8]| {
                let whole = [before.as_slice(), bytes].concat();
                let from = (before.len() + at).saturating_sub(BEFORE).min(whole.len());
                whole[from..(from + SHOWN).min(whole.len())].to_vec()
            };
            let (ours, theirs) = (around(&mine), around(&its));
            let text = is_text(&ours) && is_text(&theirs);
            let shown = |around: &[u8], bytes: &[u8]| {
                let place = past + at;
                if text {
                    return format!("byte {place}: {}", around.escape_ascii());
                }
                let bytes = &bytes[at.min(bytes.len())..bytes.len().min(at + NO_TEXT)];
                let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("byte {place}: {}", hex.join(" "))
            };
            return Ok((shown(&ours, &mine), shown(&theirs, &its)));
        }
        past += mine.len();
        before = mine[mine.len().saturating_sub(BEFORE)..].to_vec();
    }
}

/// Whether bytes are better read as letters. A character may be cut at either end.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| byte.is_ascii_control() && !b"\n\r\t\x1b".contains(byte))
}

fn find<'a, R: Read>(archive: &'a mut tar::Archive<R>, path: &[u8]) -> Result<tar::Entry<'a, R>, Error> {
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if *entry.path_bytes() == *path {
            return Ok(entry);
        }
    }
    Err(broken(io::ErrorKind::UnexpectedEof.into()))
}

/// The next bytes; fewer than the others got only at the end.
fn piece(reader: &mut impl Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    reader.take(64 << 10).read_to_end(&mut bytes).map_err(broken)?;
    Ok(bytes)
}

fn broken(error: io::Error) -> Error {
    Error::Io(IoError::new("read", "a layer", &error))
}

#[cfg(test)]
mod tests;
