//! Languages that are compiled.

use super::{CACHE, NONE};
use crate::managers::Place::{Home, Variable};
use crate::managers::{Cache, Locking, Manager};

pub(super) static MANAGERS: &[Manager] = &[
    // https://doc.rust-lang.org/cargo/guide/cargo-home.html
    Manager {
        name: "cargo",
        programs: &["cargo"],
        downloads: &[
            "build",
            "b",
            "install",
            "fetch",
            "run",
            "test",
            "check",
            "c",
            "clippy",
            "doc",
            "bench",
            "rustc",
            "chef cook",
            "auditable build",
            "zigbuild",
            "binstall",
        ],
        valued: &["-C", "--config", "-Z", "--color"],
        caches: &[
            Cache { places: &[Variable("CARGO_HOME", "/registry"), Home("/.cargo/registry")], ..CACHE },
            Cache {
                places: &[Variable("CARGO_HOME", "/git"), Home("/.cargo/git")],
                essential: false,
                ..CACHE
            },
        ],
        offline: &["--offline", "--frozen", "--help", "--version", "-V"],
        ..NONE
    },
    // https://pkg.go.dev/cmd/go#hdr-Environment_variables
    Manager {
        name: "go",
        programs: &["go"],
        downloads: &[
            "build",
            "install",
            "test",
            "run",
            "vet",
            "get",
            "mod download",
            "mod tidy",
            "mod vendor",
        ],
        valued: &["-C"],
        caches: &[
            Cache {
                places: &[Variable("GOMODCACHE", ""), Variable("GOPATH", "/pkg/mod"), Home("/go/pkg/mod")],
                ..CACHE
            },
            Cache {
                places: &[
                    Variable("GOCACHE", ""),
                    Variable("XDG_CACHE_HOME", "/go-build"),
                    Home("/.cache/go-build"),
                ],
                only: &["build", "install", "test", "run", "vet"],
                ..CACHE
            },
        ],
        cleans: &[&["clean", "-modcache"], &["clean", "-cache"]],
        ..NONE
    },
    // https://maven.apache.org/guides/mini/guide-configuring-maven.html; its repository is not made for two at once
    Manager {
        name: "maven",
        programs: &["mvn", "mvnw", "mvnd"],
        idle: &["--version", "-v", "-version", "--help", "-h", "wrapper:wrapper"],
        valued: &["-f", "--file", "-s", "--settings", "-P", "-pl", "-gs", "-t", "-T", "-l"],
        caches: &[Cache { places: &[Home("/.m2/repository")], ..CACHE }],
        locked: Locking::Better,
        dir_flags: &["-Dmaven.repo.local"],
        offline: &["-o", "--offline"],
        ..NONE
    },
    // https://docs.gradle.org/current/userguide/directory_layout.html; its locks do not reach into other containers
    Manager {
        name: "gradle",
        programs: &["gradle", "gradlew"],
        idle: &["--version", "-v", "--help", "-h", "wrapper", "--stop"],
        valued: &["-p", "--project-dir", "-b", "-c", "-I", "-x", "-g", "--gradle-user-home"],
        caches: &[Cache { places: &[Variable("GRADLE_USER_HOME", ""), Home("/.gradle")], ..CACHE }],
        locked: Locking::Better,
        dir_flags: &["--gradle-user-home", "-g"],
        offline: &["--offline"],
        ..NONE
    },
    // https://learn.microsoft.com/nuget/consume-packages/managing-the-global-packages-and-cache-folders; a step with
    // --no-restore needs the packages as well
    Manager {
        name: "nuget",
        programs: &["dotnet", "nuget"],
        downloads: &["restore", "build", "publish", "test", "pack"],
        valued: &[],
        caches: &[Cache { places: &[Variable("NUGET_PACKAGES", ""), Home("/.nuget/packages")], ..CACHE }],
        dir_flags: &["--packages"],
        offline: &["--help", "-h"],
        cleans: &[&["nuget", "locals", "all", "--clear"], &["nuget", "locals", "global-packages", "--clear"]],
        ..NONE
    },
];
