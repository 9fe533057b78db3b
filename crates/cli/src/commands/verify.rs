//! `kiln verify`.

use std::process::ExitCode;

use kiln::{ImageDifference, PartDifference, PathDifference, Unvaried, VerifyReport, VerifyRequest};

use super::{build, cancel_on_signal, start};
use crate::args::{Global, ProgressMode, VerifyArgs};
use crate::hints::Failure;
use crate::ui::{self, Progress};

/// Builds and compares. Exit code 1 if the builds differ.
pub(crate) fn verify(global: Global, args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let asked = &args.build;
    let outputs = !asked.output.is_empty() || asked.iidfile.is_some() || asked.metadata_file.is_some();
    if outputs || !asked.tag.is_empty() {
        return Err(Failure::usage(
            "verify keeps no image: leave --tag, --output, --iidfile and --metadata-file to `kiln build`",
        ));
    }
    let request = VerifyRequest { build: build::request(&global, asked)?, runs: args.runs };
    let engine = start(global)?;
    let cancel = cancel_on_signal()?;
    let progress = Progress::new(if asked.quiet { ProgressMode::Quiet } else { asked.progress });
    let result = engine.verify(&request, &progress, &cancel);
    progress.finish();
    let report = result?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        ui::print(text(&report).trim_end());
    }
    Ok(if report.difference.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn text(report: &VerifyReport) -> String {
    let digest = report.digest.map_or_else(String::new, |digest| digest.to_string());
    let date = match report.source_date_epoch {
        Some(seconds) => format!("SOURCE_DATE_EPOCH={seconds}"),
        None => "the date of its commit".to_owned(),
    };
    let Some(ImageDifference { run, digest: other, platform, part }) = &report.difference else {
        return format!("{} builds with {date} gave {digest}\n{}", report.runs, circumstances(report));
    };
    let other = other.map_or_else(String::new, |digest| digest.to_string());
    let mut out = format!("not reproducible with {date}: build 1 gave {digest}\n");
    out += &format!("{:>50} {other}\n", format!("build {run} gave"));
    out += &match part {
        PartDifference::Layer { number, of, created_by, paths, count } => {
            let mut out = format!("{platform}, layer {number} of {of}: {created_by}\n");
            for PathDifference { path, field, first, other, .. } in paths {
                out += &format!("  {path}: {field}: {} / {}\n", shown(first), shown(other));
            }
            match count - paths.len() {
                0 => {}
                more => out += &format!("  and {more} more in this layer\n"),
            }
            let mut said: Vec<&str> = Vec::new();
            for advice in paths.iter().filter_map(|path| path.advice.as_deref()) {
                if !said.contains(&advice) {
                    said.push(advice);
                    out += &format!("hint: {advice}\n");
                }
            }
            if number < of {
                out += "Later layers were not looked at: they may differ because this one does.\n";
            }
            out
        }
        PartDifference::Layers { first, other } => {
            format!("{platform}: build 1 has {first} layers, build {run} has {other}\n")
        }
        PartDifference::Config { field, first, other } => {
            format!("{platform}, configuration: {field}: {} / {}\n", shown(first), shown(other))
        }
    };
    out + &circumstances(report)
}

/// What was different in the builds, and what could not be.
fn circumstances(report: &VerifyReport) -> String {
    let varied: Vec<_> = report.varied.iter().map(|circumstance| circumstance.words()).collect();
    let mut out = format!("varied: {}\n", varied.join(", "));
    for Unvaried { circumstance, reason } in &report.same {
        out += &format!("not varied: {}: {reason}\n", circumstance.words());
    }
    out
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "(not there)" } else { value }
}

#[cfg(test)]
mod tests {
    use kiln::Circumstance;

    use super::*;

    #[test]
    fn a_difference_is_told_with_its_layer_path_and_field() {
        let path = |path: &str, other: &str| PathDifference {
            path: path.to_owned(),
            field: "mtime".to_owned(),
            first: "1".to_owned(),
            other: other.to_owned(),
            advice: Some("look at the clock".to_owned()),
        };
        let report = VerifyReport {
            digest: None,
            source_date_epoch: Some(0),
            runs: 2,
            varied: vec![Circumstance::Umask, Circumstance::HostName],
            same: vec![Unvaried { circumstance: Circumstance::DirectoryOrder, reason: "no".to_owned() }],
            difference: Some(ImageDifference {
                run: 2,
                digest: None,
                platform: "linux/amd64".parse().unwrap(),
                part: PartDifference::Layer {
                    number: 1,
                    of: 2,
                    created_by: "RUN date".to_owned(),
                    paths: vec![path("/a", "2"), path("/b", "")],
                    count: 5,
                },
            }),
        };
        let text = text(&report);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines[2..],
            [
                "linux/amd64, layer 1 of 2: RUN date",
                "  /a: mtime: 1 / 2",
                "  /b: mtime: 1 / (not there)",
                "  and 3 more in this layer",
                "hint: look at the clock",
                "Later layers were not looked at: they may differ because this one does.",
                "varied: umask, host name",
                "not varied: order of directories: no",
            ]
        );
        let same = VerifyReport { difference: None, source_date_epoch: None, ..report };
        assert!(super::text(&same).starts_with("2 builds with the date of its commit gave"), "{same:?}");
    }
}
