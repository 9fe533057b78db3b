//! `RUN --mount=`: one CSV record (RFC 4180, as Go's encoding/csv reads it) of `key=value` fields.

use crate::node::error;
use crate::suggest::nearest;
use crate::{Diagnostic, Flag, MountFlag};

/// Every key of every mount type. <https://docs.docker.com/reference/dockerfile/#run---mount>
const KEYS: [&str; 19] = [
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "size",
    "env",
];

/// Keys that may stand without a value.
const BARE: [&str; 5] = ["readonly", "ro", "readwrite", "rw", "required"];

/// Splits a flag's value into fields and checks what does not depend on variables.
pub(crate) fn fields(flag: Flag) -> Result<MountFlag, Diagnostic> {
    let text = flag.value.unwrap_or_default();
    let record = record(&text).map_err(|message| error(message, flag.span))?;
    let mut fields = Vec::with_capacity(record.len());
    for field in record {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value.to_owned())),
            None => (field.to_lowercase(), None),
        };
        check(&key, value.as_deref(), &field).map_err(|(message, help)| {
            let mut error = error(message, flag.span);
            error.help = help;
            error
        })?;
        fields.push((key, value));
    }
    Ok(MountFlag { fields, span: flag.span })
}

fn check(key: &str, value: Option<&str>, field: &str) -> Result<(), (String, Option<String>)> {
    if !KEYS.contains(&key) {
        let help = nearest(key, KEYS).map(|near| format!("did you mean `{near}`?"));
        return Err((format!("--mount has no key `{key}` (in `{field}`)"), help));
    }
    match value {
        None if !BARE.contains(&key) => {
            Err((format!("the key `{key}` of --mount needs a value: {key}=..."), None))
        }
        Some(value) if key == "from" && has_variable(value) => {
            let help =
                "give the image a name with FROM ... AS, where variables work, and use that".to_owned();
            Err((format!("variables do not work in from={value}"), Some(help)))
        }
        _ => Ok(()),
    }
}

/// Whether a text has a `$` before something.
pub(crate) fn has_variable(text: &str) -> bool {
    text.find('$').is_some_and(|at| at + 1 < text.len())
}

/// One record: fields between commas; a field may be in double quotes, in which `""` is a quote. A quote inside a bare
/// field is an error.
fn record(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    if rest.is_empty() {
        return Err("--mount needs a value: --mount=type=cache,target=...".to_owned());
    }
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = quoted_field(quoted)?;
            fields.push(field);
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(fields),
                None => return Err("--mount: text follows a closing quote".to_owned()),
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let field = &rest[..end];
            if field.contains('"') {
                return Err(format!("--mount: a bare quote in `{field}`; put the whole field in quotes"));
            }
            fields.push(field.to_owned());
            match rest[end..].strip_prefix(',') {
                Some(next) => rest = next,
                None => return Ok(fields),
            }
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some(quote) = rest.find('"') else {
            return Err("--mount: a quote is not closed".to_owned());
        };
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, rest)),
        }
    }
}
