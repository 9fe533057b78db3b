//! `-o type=oci,dest=image.tar`: CSV fields as buildx reads them.

use std::path::PathBuf;

use kiln::Output;

use crate::hints::Failure;

/// Reads one `--output`.
pub(crate) fn parse(text: &str) -> Result<Output, Failure> {
    let bad = |reason: String| Failure::usage(format!("--output {text}: {reason}"));
    // A bare path is a directory for the files, `-` a tar on standard output, as docker has it.
    if !text.contains('=') {
        return Ok(if text == "-" {
            Output::Tar { dest: None }
        } else {
            Output::Local { dest: text.into() }
        });
    }
    let mut kind = None;
    let mut dest: Option<PathBuf> = None;
    let mut tar = None;
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| bad(format!("{field:?} has no `=`")))?;
        match key.to_ascii_lowercase().as_str() {
            "type" => kind = Some(value),
            "dest" if value == "-" => dest = None,
            "dest" => dest = Some(value.into()),
            "tar" => {
                let value = value.parse().map_err(|_| bad("`tar` is true or false".to_owned()))?;
                tar = Some(value);
            }
            "name" => return Err(bad("`name` is not supported yet; use --tag".to_owned())),
            other => {
                return Err(bad(format!("`{other}` is not supported yet; kiln reads type, dest and tar")));
            }
        }
    }
    if tar.is_some() && kind != Some("oci") {
        return Err(bad("`tar` goes with type=oci only".to_owned()));
    }
    match kind {
        Some("oci") => {
            let tar = tar.unwrap_or(true);
            if !tar && dest.is_none() {
                return Err(bad("tar=false needs dest=DIRECTORY".to_owned()));
            }
            Ok(Output::Oci { dest, tar })
        }
        Some("docker") => Ok(Output::Docker { dest }),
        Some("tar") => Ok(Output::Tar { dest }),
        Some("local") => match dest {
            Some(dest) => Ok(Output::Local { dest }),
            None => Err(bad("type=local needs dest=DIRECTORY".to_owned())),
        },
        Some("image") if dest.is_some() => Err(bad("type=image has no dest".to_owned())),
        Some("image") => Ok(Output::Image),
        Some("registry") => Err(bad("pushing to a registry is not supported yet".to_owned())),
        Some(other) => {
            Err(bad(format!("type {other:?} is unknown; kiln writes image, oci, docker, local and tar")))
        }
        None => Err(bad("`type` is missing".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_as_buildx_reads_them() {
        let rows = [
            ("type=oci,dest=a.tar", Output::Oci { dest: Some("a.tar".into()), tar: true }),
            ("type=oci,dest=a,tar=false", Output::Oci { dest: Some("a".into()), tar: false }),
            ("type=oci", Output::Oci { dest: None, tar: true }),
            ("type=docker,dest=-", Output::Docker { dest: None }),
            ("type=local,dest=out", Output::Local { dest: "out".into() }),
            ("out", Output::Local { dest: "out".into() }),
            ("-", Output::Tar { dest: None }),
            ("type=image", Output::Image),
        ];
        for (text, output) in rows {
            assert_eq!(parse(text).ok(), Some(output), "{text}");
        }
        for text in [
            "type=oci,tar=false",
            "type=local",
            "dest=a",
            "type=registry",
            "type=tar,tar=true",
            "type=oci,x=y",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
