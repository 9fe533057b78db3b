//! Who may use whom (docs/architecture.md, "Map"), held against what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate of the workspace with the crates of the workspace that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("kiln-core", &[]),
    ("kiln-dockerfile", &[]),
    ("kiln-frontend", &["kiln-dockerfile", "kiln-core"]),
    ("kiln-checks", &["kiln-frontend", "kiln-dockerfile", "kiln-core"]),
    ("kiln-solver", &["kiln-core"]),
    ("kiln-carry", &["kiln-core"]),
    ("kiln-store", &["kiln-core"]),
    ("kiln-oci", &["kiln-core"]),
    ("kiln-registry", &["kiln-oci", "kiln-core"]),
    ("kiln-git", &["kiln-core"]),
    ("kiln-runtime", &["kiln-core"]),
    ("kiln-sbom", &["kiln-core"]),
    ("kiln-shell", &[]),
    (
        "kiln",
        &[
            "kiln-carry",
            "kiln-checks",
            "kiln-core",
            "kiln-dockerfile",
            "kiln-frontend",
            "kiln-git",
            "kiln-oci",
            "kiln-registry",
            "kiln-runtime",
            "kiln-sbom",
            "kiln-shell",
            "kiln-solver",
            "kiln-store",
        ],
    ),
    // core and dockerfile for their types, checks for what it prints of them.
    ("kiln-cli", &["kiln", "kiln-checks", "kiln-core", "kiln-dockerfile"]),
    ("kiln-testkit", &["kiln-core", "kiln-oci", "kiln-solver"]),
    ("kiln-fuzz", &["kiln-core", "kiln-dockerfile", "kiln-frontend", "kiln-sbom"]),
];

/// Crates from outside that only these may use: what does I/O of a kind stays in one place.
const RESERVED: &[(&str, &[&str])] = &[
    ("reqwest", &["kiln-registry"]),
    ("rustls", &["kiln-registry"]),
    ("tokio", &["kiln-registry"]),
    ("gix-pack", &["kiln-git"]),
    ("clap", &["kiln-cli"]),
    ("nix", &["kiln-runtime"]),
    ("libc", &["kiln-runtime"]),
];

#[test]
fn crates_use_only_what_they_may() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let packages = packages();
    let names: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = allowed.keys().copied().collect();
    assert_eq!(names, listed, "the table above names each crate of the workspace once");
    let mut wrong = Vec::new();
    for (name, dependencies) in &packages {
        for dependency in dependencies.iter().filter(|dependency| names.contains(dependency.name.as_str())) {
            let fine = dependency.dev || allowed[name.as_str()].contains(&dependency.name.as_str());
            if !fine {
                wrong.push(format!("{name} must not depend on {}", dependency.name));
            }
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn tests_alone_use_the_test_kit() {
    for (name, dependencies) in packages() {
        let kit = dependencies.iter().find(|dependency| dependency.name == "kiln-testkit" && !dependency.dev);
        assert!(kit.is_none(), "{name} may have kiln-testkit as a dev-dependency only");
    }
}

#[test]
fn what_does_io_of_a_kind_stays_in_one_crate() {
    let packages = packages();
    for (reserved, users) in RESERVED {
        for (name, dependencies) in &packages {
            let uses = dependencies.iter().any(|dependency| dependency.name == *reserved && !dependency.dev);
            assert!(
                !uses || users.contains(&name.as_str()),
                "{name} must not depend on {reserved}: {users:?} does"
            );
        }
        let used = packages.values().flatten().any(|dependency| dependency.name == *reserved);
        assert!(used, "{reserved} is reserved and nobody uses it");
    }
}

#[test]
fn nobody_may_use_itself_through_others() {
    // A cycle of normal dependencies cargo refuses; the table must not invite to one either.
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    while settled.len() < allowed.len() {
        let ready = |name: &&str| {
            !settled.contains(*name) && allowed[*name].iter().all(|used| settled.contains(used))
        };
        let next: Vec<&str> = allowed.keys().copied().filter(|name| ready(name)).collect();
        assert!(!next.is_empty(), "the table goes round in a circle above {settled:?}");
        settled.extend(next);
    }
}

struct Dependency {
    name: String,
    dev: bool,
}

/// Returns the packages of the workspace with their dependencies.
fn packages() -> BTreeMap<String, Vec<Dependency>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let dependency =
        |value: &Value| Dependency { name: text(&value["name"]), dev: value["kind"].as_str() == Some("dev") };
    let package = |value: &Value| {
        let dependencies = value["dependencies"].as_array().expect("a list").iter().map(dependency);
        (text(&value["name"]), dependencies.collect())
    };
    metadata["packages"].as_array().expect("a list").iter().map(package).collect()
}
