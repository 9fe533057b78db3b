//! Cases as directories of testdata: `Dockerfile`, what is asked (`options`, may be absent), and what comes out (`plan`).

use std::fs;
use std::path::{Path, PathBuf};

use kiln_core::{Digest, ImageConfig};
use kiln_frontend::{ImageRequest, ImageTable, LowerOptions, NamedContext, ResolvedImage};

/// One directory.
pub(crate) struct Case {
    dir: PathBuf,
    /// Its Dockerfile.
    pub(crate) text: String,
}

impl Case {
    /// Returns what it is called.
    pub(crate) fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns what is asked, and the images that are known.
    pub(crate) fn options(&self) -> (LowerOptions, ImageTable) {
        read_options(&fs::read_to_string(self.dir.join("options")).unwrap_or_default())
    }
}

/// Compares what every case gives with its `plan`, or writes that with `UPDATE=1`; returns the number of cases.
pub(crate) fn compare(folder: &str, outcome: impl Fn(&Case) -> String) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(folder);
    let entries = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let mut dirs: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    dirs.sort();
    let mut wrong = Vec::new();
    for dir in &dirs {
        let text = fs::read_to_string(dir.join("Dockerfile")).unwrap();
        let got = outcome(&Case { dir: dir.clone(), text });
        let file = dir.join("plan");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, got).unwrap();
            continue;
        }
        let wanted = fs::read_to_string(&file).unwrap_or_default();
        if got != wanted {
            wrong.push(format!("{}\n--- wanted\n{wanted}--- got\n{got}", dir.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    dirs.len()
}

/// An image of which nothing is known; its digest is made of its name.
pub(crate) fn empty_image(request: &ImageRequest) -> ResolvedImage {
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
