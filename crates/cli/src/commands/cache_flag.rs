//! `--cache-from` and `--cache-to`, with buildx's keys.
//! <https://docs.docker.com/build/cache/backends/>

use kiln::{CacheMode, CacheTarget, ImageRef, LayerCompression, RecordPlace};
use kiln_core::ReferenceError;

use super::{csv, output_flag};
use crate::hints::Failure;

/// Reads all `--cache-from`.
pub(crate) fn sources(flags: &[String]) -> Result<Vec<RecordPlace>, Failure> {
    let read = |text: &String| {
        source(text).map_err(|reason| Failure::usage(format!("--cache-from {text}: {reason}")))
    };
    Ok(flags.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat())
}

/// Reads all `--cache-to`.
pub(crate) fn targets(flags: &[String]) -> Result<Vec<CacheTarget>, Failure> {
    let read =
        |text: &String| target(text).map_err(|reason| Failure::usage(format!("--cache-to {text}: {reason}")));
    Ok(flags.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat())
}

fn source(text: &str) -> Result<Vec<RecordPlace>, String> {
    let fields = csv::fields(text)?;
    if let Some(names) = names(&fields) {
        return names;
    }
    let mut flag = Flag::default();
    for field in &fields {
        let (key, value) = pair(field)?;
        match key.as_str() {
            "type" => flag.kind = Some(value.to_owned()),
            "ref" => flag.name = Some(value.to_owned()),
            "src" => flag.directory = Some(value.to_owned()),
            "dest" => return Err("`dest` goes with --cache-to; write src=DIRECTORY".to_owned()),
            other => return Err(refusal(other, "type, ref and src")),
        }
    }
    flag.place("src").map(|place| vec![place])
}

fn target(text: &str) -> Result<Vec<CacheTarget>, String> {
    let fields = csv::fields(text)?;
    if let Some(names) = names(&fields) {
        return Ok(names?.into_iter().map(CacheTarget::new).collect());
    }
    let mut flag = Flag::default();
    let mut target = CacheTarget::new(RecordPlace::Inline);
    let mut packed = None;
    for field in &fields {
        let (key, value) = pair(field)?;
        match key.as_str() {
            "type" => flag.kind = Some(value.to_owned()),
            "ref" => flag.name = Some(value.to_owned()),
            "dest" => flag.directory = Some(value.to_owned()),
            "src" => return Err("`src` goes with --cache-from; write dest=DIRECTORY".to_owned()),
            "mode" => {
                target.mode = match value {
                    "min" => CacheMode::Min,
                    "max" => CacheMode::Max,
                    _ => return Err(format!("`mode` is min or max, not {value:?}")),
                };
            }
            "ignore-error" => target.ignore_error = output_flag::boolean(&key, value)?,
            "compression" => {
                let found = output_flag::compression(value)?;
                if found == LayerCompression::Estargz {
                    return Err("compression=estargz: take gzip, zstd or uncompressed".to_owned());
                }
                target.compression = Some(found);
                packed = Some(key);
            }
            "compression-level" => {
                target.level = Some(output_flag::level(value)?);
                packed = Some(key);
            }
            // As records are.
            "oci-mediatypes" | "image-manifest" if output_flag::boolean(&key, value)? => {}
            other => {
                let all = "type, ref, dest, mode, compression, compression-level and ignore-error";
                return Err(refusal(other, all));
            }
        }
    }
    target.place = match flag.kind.as_deref() {
        Some("inline") if flag.name.is_some() || flag.directory.is_some() => {
            return Err("type=inline is in the image itself; it has no ref and no dest".to_owned());
        }
        Some("inline") if target.mode == CacheMode::Max => {
            return Err(
                "type=inline: an image has the layers of mode=min only; write type=registry".to_owned()
            );
        }
        Some("inline") => match packed {
            Some(key) => return Err(format!("`{key}` is that of the image; it goes with --output")),
            None => RecordPlace::Inline,
        },
        _ => flag.place("dest")?,
    };
    if target.level.is_some() && target.compression.is_none() {
        return Err("`compression-level` goes with `compression`".to_owned());
    }
    Ok(vec![target])
}

/// What was said of a place.
#[derive(Default)]
struct Flag {
    kind: Option<String>,
    name: Option<String>,
    directory: Option<String>,
}

impl Flag {
    fn place(self, directory: &str) -> Result<RecordPlace, String> {
        let kind = self.kind.as_deref().ok_or("`type` is missing")?;
        let stray = |key: &str| format!("`{key}` does not go with type={kind}");
        match (kind, self.name, self.directory) {
            ("registry", Some(name), None) => reference(&name),
            ("registry", None, None) => Err("type=registry needs ref=NAME".to_owned()),
            ("registry", _, Some(_)) => Err(stray(directory)),
            ("local", None, Some(path)) if !path.is_empty() => Ok(RecordPlace::Local(path.into())),
            ("local", None, _) => Err(format!("type=local needs {directory}=DIRECTORY")),
            ("local", Some(_), _) => Err(stray("ref")),
            ("inline", ..) => Err("name the image that has it: type=registry,ref=NAME".to_owned()),
            ("gha" | "s3" | "azblob", ..) => Err(format!(
                "type={kind} is not supported: it is one provider's own protocol; write type=registry, or type=local \
                 with a directory that the CI system keeps"
            )),
            (other, ..) => Err(format!("type {other:?} is unknown; there are registry, local and inline")),
        }
    }
}

/// The short form: nothing but names.
fn names(fields: &[String]) -> Option<Result<Vec<RecordPlace>, String>> {
    let short = fields.iter().all(|field| !field.contains('='));
    short.then(|| fields.iter().map(|name| reference(name)).collect())
}

fn reference(name: &str) -> Result<RecordPlace, String> {
    let name: ImageRef = name.parse().map_err(|error: ReferenceError| error.to_string())?;
    Ok(RecordPlace::Registry(name))
}

fn pair(field: &str) -> Result<(String, &str), String> {
    let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} has no `=`"))?;
    Ok((key.trim().to_ascii_lowercase(), value))
}

fn refusal(key: &str, all: &str) -> String {
    let reason = match key {
        "tag" | "digest" => "a directory has one set of records",
        "force-compression" => "layers of a cache keep their form",
        "oci-mediatypes" | "image-manifest" => "records are OCI image manifests",
        "registry.insecure" | "insecure" => "name the registry with --insecure-registry",
        "scope" | "url" | "token" | "bucket" | "region" | "name" | "account_url" => {
            "it is one provider's own; there are type=registry and type=local"
        }
        _ => return format!("`{key}` is unknown; there are {all}"),
    };
    format!("`{key}` as it is written here is not supported: {reason}")
}

#[cfg(test)]
mod tests;
