//! Refs as a repository keeps them: a file each, or a line in `packed-refs`; the file counts.
//! <https://git-scm.com/docs/gitrepository-layout>

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use gix_hash::ObjectId;
use kiln_core::{IoError, IoResultExt as _};

use crate::GitError;
use crate::refs::Ref;

/// Symbolic refs that point to symbolic refs: git's own limit.
const HOPS: usize = 5;

/// A ref's content: an id, or `ref: NAME`.
enum Content {
    Id(ObjectId),
    Name(String),
}

pub(super) fn read(directory: &Path, common: &Path) -> Result<Vec<Ref>, GitError> {
    let mut all = BTreeMap::new();
    let packed = common.join("packed-refs");
    let text = match fs::read_to_string(&packed) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(IoError::new("read", &packed, &error).into()),
    };
    for line in text.lines() {
        if let Some((id, name)) = line.split_once(' ')
            && let Ok(id) = ObjectId::from_hex(id.as_bytes())
        {
            all.insert(name.to_owned(), Content::Id(id));
        }
    }
    walk(&common.join("refs"), "refs", 0, &mut all)?;
    let head = fs::read_to_string(directory.join("HEAD")).ok().and_then(|text| parse(&text));
    let mut found = Vec::new();
    if let Some(content) = head {
        let target = match &content {
            Content::Name(name) => Some(name.clone()),
            Content::Id(_) => None,
        };
        if let Some(id) = resolve(&all, &content) {
            found.push(Ref { name: "HEAD".to_owned(), id, peeled: None, target });
        }
    }
    let rest = all.iter().filter_map(|(name, content)| {
        Some(Ref { name: name.clone(), id: resolve(&all, content)?, peeled: None, target: None })
    });
    found.extend(rest);
    Ok(found)
}

fn walk(
    directory: &Path,
    name: &str,
    depth: usize,
    all: &mut BTreeMap<String, Content>,
) -> Result<(), GitError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(IoError::new("read", directory, &error).into()),
    };
    for entry in entries {
        let entry = entry.at("read", directory)?;
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let name = format!("{name}/{file_name}");
        let kind = entry.file_type().at("look at", entry.path())?;
        if kind.is_dir() && depth < 64 {
            walk(&entry.path(), &name, depth + 1, all)?;
        } else if kind.is_file()
            && let Some(content) = fs::read_to_string(entry.path()).ok().and_then(|text| parse(&text))
        {
            all.insert(name, content);
        }
    }
    Ok(())
}

fn parse(text: &str) -> Option<Content> {
    let text = text.trim_end();
    match text.strip_prefix("ref:") {
        Some(name) => Some(Content::Name(name.trim().to_owned())),
        None => ObjectId::from_hex(text.as_bytes()).ok().map(Content::Id),
    }
}

fn resolve(all: &BTreeMap<String, Content>, content: &Content) -> Option<ObjectId> {
    let mut content = content;
    for _ in 0..HOPS {
        match content {
            Content::Id(id) => return Some(*id),
            Content::Name(name) => content = all.get(name)?,
        }
    }
    None
}
