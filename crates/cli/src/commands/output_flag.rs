//! `-o type=oci,dest=image.tar`: CSV fields as buildx reads them.
//! <https://docs.docker.com/build/exporters/>

use std::path::PathBuf;

use kiln::{ImageForm, LayerCompression, Output};
use kiln_core::ReferenceError;

use super::{annotation_flag, csv};
use crate::hints::Failure;

/// Reads one `--output`.
pub(crate) fn parse(text: &str) -> Result<Output, Failure> {
    read(text).map_err(|reason| Failure::usage(format!("--output {text}: {reason}")))
}

fn read(text: &str) -> Result<Output, String> {
    let fields = csv::fields(text)?;
    // A bare path is a directory for the files, `-` a tar on standard output, as docker has it.
    if let [path] = &fields[..]
        && path == text
        && !path.starts_with("type=")
    {
        return match path.as_str() {
            "" => Err("it is empty".to_owned()),
            "-" => Ok(Output::Tar { dest: None }),
            path => Ok(Output::Local { dest: path.into() }),
        };
    }
    let mut flag = Flag::default();
    for field in &fields {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} has no `=`"))?;
        flag.set(key.trim(), value)?;
    }
    flag.output()
}

/// What was said.
#[derive(Default)]
struct Flag {
    kind: Option<String>,
    dest: Option<PathBuf>,
    tar: Option<bool>,
    push: Option<bool>,
    store: Option<bool>,
    form: ImageForm,
    /// Keys that only outputs of images have, as they were written.
    of_images: Vec<String>,
}

impl Flag {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let lower = key.to_ascii_lowercase();
        if let Some(rest) = key.get("annotation".len()..).filter(|_| lower.starts_with("annotation")) {
            self.of_images.push(lower);
            self.form.annotations.push(annotation_flag::field(rest, value)?);
            return Ok(());
        }
        let on = || boolean(&lower, value);
        match lower.as_str() {
            "type" => self.kind = Some(value.to_owned()),
            "dest" => self.dest = Some(value.into()),
            "tar" => self.tar = Some(on()?),
            _ => {
                match lower.as_str() {
                    "name" => self.form.names = names(value)?,
                    "push" => self.push = Some(on()?),
                    "store" => self.store = Some(on()?),
                    "compression" => self.form.compression = compression(value)?,
                    "compression-level" => self.form.level = Some(level(value)?),
                    "force-compression" => self.form.force_compression = on()?,
                    "oci-mediatypes" => self.form.oci_mediatypes = Some(on()?),
                    "unpack"
                    | "push-by-digest"
                    | "registry.insecure"
                    | "name-canonical"
                    | "prefer-nondist-layers"
                    | "attestation-inline"
                        if !on()? => {}
                    // Whenever there is a SOURCE_DATE_EPOCH.
                    "rewrite-timestamp" if on()? => {}
                    other => return Err(refusal(other)),
                }
                self.of_images.push(lower);
            }
        }
        Ok(())
    }

    fn output(self) -> Result<Output, String> {
        let kind = self.kind.as_deref().ok_or("`type` is missing")?;
        let image = matches!(kind, "image" | "registry");
        let holds_image = image || matches!(kind, "oci" | "docker");
        if !holds_image && let Some(key) = self.of_images.first() {
            return Err(format!("`{key}` does not go with type={kind}"));
        }
        for (key, there) in [("push", self.push.is_some()), ("store", self.store.is_some())] {
            if there && !image {
                return Err(format!("`{key}` goes with type=image only"));
            }
        }
        if self.tar.is_some() && !matches!(kind, "oci" | "docker") {
            return Err("`tar` goes with type=oci and type=docker only".to_owned());
        }
        let stdout = self.dest.as_ref().is_some_and(|dest| dest.as_os_str() == "-");
        let (named, form) = (self.dest.is_some(), self.form);
        let dest = self.dest.filter(|_| !stdout);
        form.check()?;
        match kind {
            "oci" => {
                let tar = self.tar.unwrap_or(true);
                if !tar && dest.is_none() {
                    return Err("tar=false needs dest=DIRECTORY".to_owned());
                }
                Ok(Output::Oci { dest, tar, form })
            }
            "docker" if self.tar == Some(false) => {
                Err("tar=false: docker loads archives only; write type=oci,tar=false".to_owned())
            }
            "docker" => Ok(Output::Docker { dest, form }),
            "tar" => Ok(Output::Tar { dest }),
            "local" => match dest {
                Some(dest) => Ok(Output::Local { dest }),
                None => Err("type=local needs dest=DIRECTORY".to_owned()),
            },
            "image" | "registry" | "cacheonly" if named => Err(format!("type={kind} has no dest")),
            "image" | "registry" => {
                let registry = kind == "registry";
                let (push, store) = (self.push.unwrap_or(registry), self.store.unwrap_or(!registry));
                match push || store {
                    true => Ok(Output::Image { form, push, store }),
                    false => Err("it neither stores nor pushes: write type=cacheonly".to_owned()),
                }
            }
            "cacheonly" => Ok(Output::CacheOnly),
            other => Err(format!(
                "type {other:?} is unknown; kiln writes image, registry, oci, docker, local, tar and cacheonly"
            )),
        }
    }
}

/// Go's booleans, and nothing for true, as BuildKit takes them.
pub(super) fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("`{key}` is true or false, not {value:?}")),
    }
}

fn names(list: &str) -> Result<Vec<kiln::ImageRef>, String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|error: ReferenceError| error.to_string())).collect()
}

pub(super) fn compression(word: &str) -> Result<LayerCompression, String> {
    let all = LayerCompression::ALL;
    all.into_iter().find(|known| known.name() == word).ok_or_else(|| {
        format!("compression {word:?} is unknown; there are {}", all.map(LayerCompression::name).join(", "))
    })
}

pub(super) fn level(number: &str) -> Result<u32, String> {
    number.parse().map_err(|_| format!("`compression-level` is a number from 0, not {number:?}"))
}

/// Why a key of buildx's is not there.
fn refusal(key: &str) -> String {
    let reason = match key {
        "unpack" => "layers are unpacked when a step needs them",
        "push-by-digest" => "give the image a name, and push that",
        "registry.insecure" => "name the registry with --insecure-registry",
        "name-canonical" => "an image is found by its digest as it is",
        "dangling-name-prefix" => "an image without name is found by its digest",
        "prefer-nondist-layers" => "layers that lie elsewhere are refused",
        "rewrite-timestamp" => "file times are clamped if there is a SOURCE_DATE_EPOCH, and else never",
        "source-date-epoch" => "set SOURCE_DATE_EPOCH",
        "buildinfo" | "buildinfo-attrs" => "BuildKit no longer has it either",
        "platform-split" => "several platforms get a directory each, one gets none",
        _ => {
            return format!(
                "`{key}` is unknown; there are type, dest, tar, name, push, store, compression, \
                 compression-level, force-compression, oci-mediatypes and annotation.KEY"
            );
        }
    };
    format!("`{key}` as it is written here is not supported: {reason}")
}

#[cfg(test)]
mod tests;
