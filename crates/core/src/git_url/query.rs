//! What is wanted of a repository: fragment and query of its URL.

use crate::clean_path;

#[derive(Default)]
pub(super) struct Wanted {
    pub(super) reference: Option<String>,
    pub(super) subdir: String,
    pub(super) checksum: Option<String>,
    pub(super) keep_git_dir: Option<bool>,
    pub(super) submodules: Option<bool>,
}

const KEYS: &str = "ref, tag, branch, commit, checksum, subdir, keep-git-dir, submodules";

/// Reads both; what they say twice they must say alike.
pub(super) fn read(fragment: &str, query: &str) -> Result<Wanted, String> {
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let mut reference = reference.to_owned();
    let mut subdir = subdir.to_owned();
    let mut wanted = Wanted::default();
    let (mut tag, mut branch, mut checksum) = (String::new(), String::new(), String::new());
    let mut seen: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let broken = || format!("{pair:?} in its query has a broken %");
        let key = decode(key, true).ok_or_else(broken)?;
        let value = decode(value, true).ok_or_else(broken)?;
        let is_flag = matches!(key.as_str(), "keep-git-dir" | "submodules");
        if value.is_empty() && !is_flag {
            return Err(format!("its query {key:?} has no value"));
        }
        if seen.contains(&key) {
            return Err(format!("its query {key:?} has more than one value"));
        }
        match key.as_str() {
            "ref" => agree("ref", &mut reference, value)?,
            "subdir" => agree("subdir", &mut subdir, value)?,
            "tag" => tag = prefixed("refs/tags/", &value),
            "branch" => branch = prefixed("refs/heads/", &value),
            "commit" | "checksum" => agree("commit", &mut checksum, value.to_ascii_lowercase())?,
            "keep-git-dir" => wanted.keep_git_dir = Some(flag(&key, &value)?),
            "submodules" => wanted.submodules = Some(flag(&key, &value)?),
            // Newer frontends have it: files get the commit's time, or that of the checkout. kiln does the first.
            "mtime" if value == "commit" => {}
            "mtime" => return Err(format!("mtime={value} is not supported; files have the commit's time")),
            _ => return Err(format!("its query {key:?} is unknown; there are {KEYS}")),
        }
        seen.push(key);
    }
    if !tag.is_empty() && !branch.is_empty() {
        return Err("it asks for a tag and for a branch".to_owned());
    }
    for name in [tag, branch] {
        if !name.is_empty() {
            agree("ref", &mut reference, name)?;
        }
    }
    if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("commit {checksum:?} is not hexadecimal"));
    }
    if reference.is_empty() {
        reference.clone_from(&checksum);
    }
    if reference.chars().any(|c| c.is_control() || c == ' ') || reference.starts_with('-') {
        return Err(format!("{reference:?} cannot be the name of a ref"));
    }
    wanted.reference = Some(reference).filter(|text| !text.is_empty());
    wanted.checksum = Some(checksum).filter(|text| !text.is_empty());
    wanted.subdir = inside(&subdir)?;
    Ok(wanted)
}

fn agree(what: &str, known: &mut String, value: String) -> Result<(), String> {
    if !known.is_empty() && *known != value {
        return Err(format!("its {what} is {known:?} and {value:?}"));
    }
    *known = value;
    Ok(())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// Go's `strconv.ParseBool`; the key alone means true.
fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("its query {key:?} is {value:?}, neither true nor false")),
    }
}

/// Cleans a directory; it must stay in the repository.
fn inside(subdir: &str) -> Result<String, String> {
    let cleaned = clean_path(subdir.trim_start_matches('/'));
    if cleaned == ".." || cleaned.starts_with("../") || cleaned.contains('\0') {
        return Err(format!("its directory {subdir:?} is outside of the repository"));
    }
    Ok(if cleaned == "." { String::new() } else { cleaned })
}

/// Undoes `%41`, and `+` in a query; none if it is broken, or not UTF-8.
pub(super) fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let high = digit(bytes.next())?;
                let low = digit(bytes.next())?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}
