//! Every directory of testdata/lower is a case: `Dockerfile`, what is asked (`options`, may be absent), and what comes
//! out (`plan`). `UPDATE=1 cargo test -p kiln-frontend` writes the last anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_core::{Digest, ImageConfig};
use kiln_dockerfile::{Diagnostic, Position, Severity, parse};
use kiln_frontend::{
    ImageRequest, ImageTable, LowerOptions, Lowered, NamedContext, ResolvedImage, lower, print,
};

#[test]
fn plans_are_as_written_down() {
    let mut cases: Vec<PathBuf> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 20, "only {} cases in {}", cases.len(), root().display());
    let mut wrong = Vec::new();
    for case in cases {
        let got = outcome(&case);
        let file = case.join("plan");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, got).unwrap();
            continue;
        }
        let wanted = fs::read_to_string(&file).unwrap_or_default();
        if got != wanted {
            wrong.push(format!("{}\n--- wanted\n{wanted}--- got\n{got}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lower")
}

fn outcome(case: &Path) -> String {
    let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
    let asked = fs::read_to_string(case.join("options")).unwrap_or_default();
    let (options, known) = read_options(&asked);
    let mut images = ImageTable::new();
    let (file, found) = parse(&text);
    if found.iter().any(|d| d.severity == Severity::Error) {
        return format!("not parsed\n{}", describe(&found, &text));
    }
    let mut asked_for = String::new();
    let mut round = 0;
    loop {
        match lower(&file, &options, &images) {
            Ok(Lowered::NeedImages(requests)) => {
                let again = if round == 0 { "needs" } else { "then needs" };
                round += 1;
                for request in requests {
                    let _ = writeln!(asked_for, "{again} {} {}", request.name, request.platform);
                    let image = known.get(&request).cloned().unwrap_or_else(|| empty_image(&request));
                    assert!(images.insert(request, image).is_none(), "{}: asked twice", case.display());
                }
            }
            Ok(Lowered::Ready(plan)) => {
                return format!("{asked_for}{}{}", print::plan(&plan), describe(&plan.diagnostics, &text));
            }
            Err(errors) => {
                assert!(errors.iter().any(|d| d.severity == Severity::Error), "an error without an error");
                return format!("{asked_for}{}", describe(&errors, &text));
            }
        }
    }
}

fn describe(diagnostics: &[Diagnostic], text: &str) -> String {
    let mut out = String::new();
    for one in diagnostics {
        let kind = if one.severity == Severity::Error { "error" } else { "warning" };
        let Position { line, column } = Position::of(text, one.span.start);
        let marked = text[one.span.start..one.span.end].lines().next().unwrap_or("");
        let _ = writeln!(out, "{kind} {line}:{column} `{marked}`: {}", one.message);
        if let Some(help) = &one.help {
            let _ = writeln!(out, "  help: {help}");
        }
    }
    out
}

/// An image of which nothing is known; its digest is made of its name.
fn empty_image(request: &ImageRequest) -> ResolvedImage {
    let manifest = Digest::of(request.name.as_bytes());
    let mut config = ImageConfig::scratch(&request.platform);
    config.rootfs.diff_ids.push(manifest);
    ResolvedImage { manifest, config }
}

/// One option a line: `build-arg A=b`, `target x`, `platform p`, `build-platform p`, `label a=b`,
/// `context NAME files|image`, `allow entitlement`, `no-cache`, `no-cache-filter x`, `image NAME PLATFORM {docker's "config" object}`.
fn read_options(text: &str) -> (LowerOptions, ImageTable) {
    let build_platform = Some("linux/amd64".parse().unwrap());
    let mut options = LowerOptions { build_platform, ..LowerOptions::default() };
    let mut images = ImageTable::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let pair = || value.split_once(['=', ' ']).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        match key {
            "build-arg" => drop(options.build_args.insert(pair().0, pair().1)),
            "label" => drop(options.labels.insert(pair().0, pair().1)),
            "target" => options.target = Some(value.to_owned()),
            "platform" => options.platforms.push(value.parse().unwrap()),
            "build-platform" => options.build_platform = Some(value.parse().unwrap()),
            "allow" => drop(options.allow.insert(value.parse().unwrap())),
            "no-cache" => options.no_cache = true,
            "no-cache-filter" => options.no_cache_filter.push(value.to_owned()),
            "context" => {
                let kind = if pair().1 == "image" { NamedContext::Image } else { NamedContext::Files };
                options.contexts.insert(pair().0, kind);
            }
            "image" => {
                let mut words = value.splitn(3, ' ');
                let name = words.next().unwrap().to_owned();
                let platform = words.next().unwrap().parse().unwrap();
                let request = ImageRequest { name, platform };
                let mut image = empty_image(&request);
                image.config.config = serde_json::from_str(words.next().unwrap()).unwrap();
                images.insert(request, image);
            }
            other => panic!("unknown option {other:?}"),
        }
    }
    (options, images)
}
