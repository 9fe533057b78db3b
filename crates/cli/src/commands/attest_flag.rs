//! `--attest type=provenance,mode=max`, and its short forms `--provenance` and `--sbom`: CSV fields as buildx reads them.
//! <https://docs.docker.com/build/metadata/attestations/>

use kiln::{Attest, ProvenanceMode, ProvenanceOptions};

use super::{csv, output_flag::boolean};
use crate::args::AttestArgs;
use crate::hints::Failure;

/// Reads all of them. Each type may be there once.
pub(crate) fn read(args: &AttestArgs) -> Result<Vec<Attest>, Failure> {
    let long = args.attest.iter().map(|text| ("--attest", text.clone()));
    let short = |flag, kind, value: &Option<String>| value.as_ref().map(|value| (flag, spelled(kind, value)));
    let short = [short("--provenance", "provenance", &args.provenance), short("--sbom", "sbom", &args.sbom)];
    let mut seen = Vec::new();
    let mut attests = Vec::new();
    for (flag, text) in long.chain(short.into_iter().flatten()) {
        let wrong = |reason: String| Failure::usage(format!("{flag} {text}: {reason}"));
        let (kind, attest) = parse(&text).map_err(wrong)?;
        if seen.contains(&kind) {
            return Err(wrong(format!("type={kind} is given twice")));
        }
        seen.push(kind);
        attests.extend(attest);
    }
    Ok(attests)
}

/// Spells a short form out: `true`, `false` or further keys.
fn spelled(kind: &str, value: &str) -> String {
    match boolean("", value) {
        Ok(true) => format!("type={kind}"),
        Ok(false) => format!("type={kind},disabled=true"),
        Err(_) => format!("type={kind},{value}"),
    }
}

/// Returns the type, and what is asked for if it is not disabled.
fn parse(text: &str) -> Result<(String, Option<Attest>), String> {
    let mut kind = None;
    let mut disabled = false;
    let mut keys = Vec::new();
    for field in csv::fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} has no `=`"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => kind = Some(value.to_owned()),
            "disabled" => disabled = boolean("disabled", value)?,
            key => keys.push((key.to_owned(), value.to_owned())),
        }
    }
    let kind = kind.ok_or("it has no type=; there are provenance and sbom")?;
    let attest = match kind.as_str() {
        "provenance" => Attest::Provenance(provenance(&keys)?),
        "sbom" => sbom(&keys)?,
        other => return Err(format!("there is no type={other}; there are provenance and sbom")),
    };
    Ok((kind, (!disabled).then_some(attest)))
}

fn provenance(keys: &[(String, String)]) -> Result<ProvenanceOptions, String> {
    let mut options = ProvenanceOptions::default();
    for (key, value) in keys {
        match key.as_str() {
            "mode" => {
                options.mode = match value.as_str() {
                    "min" => ProvenanceMode::Min,
                    "max" => ProvenanceMode::Max,
                    other => return Err(format!("mode={other}: there are min and max")),
                }
            }
            "builder-id" => options.builder_id = Some(value.clone()).filter(|id| !id.is_empty()),
            "filename" if value.is_empty() || value.contains('/') || matches!(value.as_str(), "." | "..") => {
                return Err(format!("filename={value}: a name without directories is wanted"));
            }
            "filename" => options.filename = Some(value.clone()),
            "reproducible" => options.reproducible = boolean(key, value)?,
            "inline-only" => options.inline_only = boolean(key, value)?,
            "version" if value == "v1" => {}
            "version" => return Err(format!("version={value}: kiln writes SLSA provenance version v1 only")),
            other => return Err(format!("type=provenance has no key {other}")),
        }
    }
    Ok(options)
}

fn sbom(keys: &[(String, String)]) -> Result<Attest, String> {
    match keys.first() {
        None => Ok(Attest::Sbom),
        Some((key, _)) if key == "generator" => {
            Err("generator: kiln reads the packages itself and runs no scanner; \
             leave it out, or scan the image afterwards"
                .to_owned())
        }
        Some((key, _)) => Err(format!("type=sbom has no key {key}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(attest: &[&str], provenance: Option<&str>, sbom: Option<&str>) -> AttestArgs {
        AttestArgs {
            attest: attest.iter().map(|text| (*text).to_owned()).collect(),
            provenance: provenance.map(str::to_owned),
            sbom: sbom.map(str::to_owned),
            sbom_file: None,
            provenance_file: None,
        }
    }

    #[test]
    fn flags_are_read_as_buildx_reads_them() {
        let min = ProvenanceOptions { mode: ProvenanceMode::Min, ..ProvenanceOptions::default() };
        let rows = [
            (args(&[], None, None), vec![]),
            (args(&["type=sbom"], None, None), vec![Attest::Sbom]),
            (args(&[], None, Some("true")), vec![Attest::Sbom]),
            (args(&[], Some("false"), Some("0")), vec![]),
            (args(&["type=provenance,disabled=true"], None, None), vec![]),
            (args(&[], Some("true"), None), vec![Attest::Provenance(ProvenanceOptions::default())]),
            (args(&[], Some("mode=min"), None), vec![Attest::Provenance(min.clone())]),
            (
                args(&["type=provenance,mode=min,version=v1", "type=sbom"], None, None),
                vec![Attest::Provenance(min), Attest::Sbom],
            ),
        ];
        for (args, expected) in rows {
            let read = read(&args).unwrap_or_else(|_| panic!("{args:?} is refused"));
            assert_eq!(read, expected, "{args:?}");
        }
    }

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        for text in [
            "mode=max",
            "type=vex",
            "type=provenance,mode=all",
            "type=provenance,version=v0.2",
            "type=provenance,filename=../x",
            "type=provenance,who=me",
            "type=sbom,generator=docker/scout",
            "type=sbom,disabled=maybe",
        ] {
            assert!(read(&args(&[text], None, None)).is_err(), "{text}");
        }
        assert!(read(&args(&["type=sbom"], None, Some("true"))).is_err(), "twice");
    }
}
