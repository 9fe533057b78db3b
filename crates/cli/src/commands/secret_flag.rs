//! `--secret id=ID[,src=FILE|,env=NAME][,type=file|env]`: CSV fields as buildx reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln::Secret;

use super::csv;
use crate::hints::Failure;
use crate::{config, ui};

/// One flag.
#[derive(Debug, PartialEq, Eq)]
struct SecretFlag {
    id: String,
    source: Source,
}

/// Where a secret is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable(String),
    /// In the variable of the id's name, or else in the file of that name.
    Named,
}

/// Reads what the flags name; of two with one id the last one counts.
pub(crate) fn read(flags: &[String]) -> Result<BTreeMap<String, Secret>, Failure> {
    flags.iter().map(|text| read_one(text)).collect()
}

fn read_one(text: &str) -> Result<(String, Secret), Failure> {
    let bad = |reason: String| Failure::usage(format!("--secret {text}: {reason}"));
    let SecretFlag { id, source } = parse(text).map_err(bad)?;
    let from_file = |path: &Path| read_file(path).map_err(bad);
    let bytes = match &source {
        Source::File(path) => from_file(path)?,
        Source::Variable(name) => config::variable(name).unwrap_or_else(|| {
            // As docker does; but it is rarely meant.
            ui::note(format_args!(
                "warning: --secret {text}: there is no variable {name}; the secret is empty"
            ));
            Vec::new()
        }),
        Source::Named => match config::variable(&id) {
            Some(value) => value,
            None => from_file(Path::new(&id))?,
        },
    };
    let secret = Secret::new(bytes).map_err(|error| bad(error.to_string()))?;
    Ok((id, secret))
}

/// Reads at most one byte more than a secret may have: the file may be endless.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let limit = u64::try_from(Secret::MAX).unwrap_or(u64::MAX) + 1;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, limit), &mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(bytes)
}

fn parse(text: &str) -> Result<SecretFlag, String> {
    let (mut id, mut file, mut variable, mut kind) = (String::new(), String::new(), String::new(), None);
    for field in csv::fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} has no `=`"))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => value.clone_into(&mut id),
            "src" | "source" => value.clone_into(&mut file),
            "env" => value.clone_into(&mut variable),
            "type" if value == "file" || value == "env" => kind = Some(value.to_owned()),
            "type" => return Err(format!("type {value:?} is unknown; it is file or env")),
            other => return Err(format!("`{other}` is unknown; there are id, src, env and type")),
        }
    }
    if id.is_empty() {
        return Err("`id` is missing".to_owned());
    }
    if kind.as_deref() == Some("env") && variable.is_empty() {
        variable = std::mem::take(&mut file);
    }
    let source = match (variable.is_empty(), file.is_empty()) {
        (false, _) => Source::Variable(variable),
        (true, false) => Source::File(file.into()),
        (true, true) => Source::Named,
    };
    Ok(SecretFlag { id, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_as_buildx_reads_them() {
        let file = |path: &str| Source::File(path.into());
        let variable = |name: &str| Source::Variable(name.to_owned());
        let rows = [
            ("id=a", "a", Source::Named),
            ("id=a,src=f", "a", file("f")),
            ("source=f,ID=a", "a", file("f")),
            ("type=file,id=a,src=f", "a", file("f")),
            ("id=a,env=N", "a", variable("N")),
            ("type=env,id=a,src=N", "a", variable("N")),
            ("type=env,id=a,env=N", "a", variable("N")),
            ("type=env,id=a", "a", Source::Named),
            ("id=a,src=f,env=N", "a", variable("N")),
            ("id=a,src=x=y", "a", file("x=y")),
            ("id=a,\"src=a,\"\"b\"\"\"", "a", file("a,\"b\"")),
        ];
        for (text, id, source) in rows {
            assert_eq!(parse(text), Ok(SecretFlag { id: id.to_owned(), source }), "{text}");
        }
        let refused = [
            ("", "has no `=`"),
            ("a", "has no `=`"),
            ("src=f", "`id` is missing"),
            ("id=a,type=vault", "type \"vault\" is unknown"),
            ("id=a,mode=0400", "`mode` is unknown"),
            ("id=a,src=\"f\"", "a quote stands inside"),
            ("id=a,\"src=f", "a quote is not closed"),
            ("\"id=a\"b", "a comma is missing"),
        ];
        for (text, reason) in refused {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
