//! Distributions, and what belongs to no language.

use super::{CACHE, NONE};
use crate::managers::Place::{Fixed, Home, Variable};
use crate::managers::{Cache, Locking, Manager};

const DNF: Manager = Manager {
    downloads: &[
        "install",
        "update",
        "upgrade",
        "groupinstall",
        "group",
        "makecache",
        "reinstall",
        "builddep",
        "distro-sync",
        "localinstall",
        "download",
    ],
    valued: &[
        "--setopt",
        "--releasever",
        "--installroot",
        "--repo",
        "--enablerepo",
        "--disablerepo",
        "-x",
        "-c",
    ],
    locked: Locking::Better,
    cleans: &[&["clean", "all"], &["clean", "packages"], &["clean", "metadata"], &["clean", "dbcache"]],
    ..NONE
};

pub(super) static MANAGERS: &[Manager] = &[
    // https://manpages.debian.org/apt-get; the lists only, for /var/lib/apt/extended_states belongs to the image
    Manager {
        name: "apt",
        programs: &["apt-get", "apt", "aptitude"],
        downloads: &["install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "satisfy"],
        valued: &["-o", "--option", "-t", "--target-release", "-c", "--config-file"],
        caches: &[
            Cache { places: &[Fixed("/var/cache/apt")], also: &[Fixed("/var/cache/apt/archives")], ..CACHE },
            Cache { places: &[Fixed("/var/lib/apt/lists")], essential: false, ..CACHE },
        ],
        locked: Locking::Must,
        offline: &["--no-download", "-s", "--simulate", "--dry-run", "--help", "--version"],
        cleans: &[&["clean"], &["autoclean"], &["dist-clean"], &["distclean"]],
        ..NONE
    },
    // https://dnf.readthedocs.io/en/latest/conf_ref.html; since Fedora 41 the program called dnf is dnf5
    Manager {
        name: "dnf",
        programs: &["dnf"],
        caches: &[Cache {
            places: &[Fixed("/var/cache/dnf")],
            also: &[Fixed("/var/cache/libdnf5"), Fixed("/var/cache/yum")],
            ..CACHE
        }],
        ..DNF
    },
    Manager {
        name: "dnf5",
        programs: &["dnf5"],
        caches: &[Cache { places: &[Fixed("/var/cache/libdnf5")], ..CACHE }],
        ..DNF
    },
    Manager {
        name: "yum",
        programs: &["yum"],
        caches: &[Cache {
            places: &[Fixed("/var/cache/yum")],
            also: &[Fixed("/var/cache/dnf"), Fixed("/var/cache/libdnf5")],
            ..CACHE
        }],
        ..DNF
    },
    // the directory is compiled in: dnf/dnf-main.c of rpm-software-management/microdnf
    Manager {
        name: "microdnf",
        programs: &["microdnf"],
        caches: &[Cache {
            places: &[Fixed("/var/cache/yum")],
            also: &[Fixed("/var/cache/libdnf5"), Fixed("/var/cache/dnf")],
            ..CACHE
        }],
        ..DNF
    },
    // https://wiki.alpinelinux.org/wiki/Local_APK_cache: packages are kept only if /etc/apk/cache is there
    Manager {
        name: "apk",
        programs: &["apk"],
        downloads: &["add", "upgrade", "fetch"],
        valued: &["-X", "--repository", "-p", "--root", "--cache-dir", "-t", "--virtual", "--keys-dir"],
        caches: &[Cache { places: &[Fixed("/etc/apk/cache")], also: &[Fixed("/var/cache/apk")], ..CACHE }],
        locked: Locking::Better,
        dir_flags: &["--cache-dir"],
        off_flags: &["--no-cache"],
        offline: &["--no-network", "-s", "--simulate"],
        cleans: &[&["cache", "purge"]],
        ..NONE
    },
    // https://ccache.dev/manual/latest.html#config_cache_dir
    Manager {
        name: "ccache",
        programs: &["ccache"],
        idle: &[
            "-s",
            "--show-stats",
            "-z",
            "--zero-stats",
            "-M",
            "--max-size",
            "-p",
            "--show-config",
            "-V",
            "--version",
            "-o",
            "--set-config",
            "-c",
            "--cleanup",
            "-C",
            "--clear",
            "-h",
            "--help",
        ],
        valued: &["-M", "--max-size", "-o", "--set-config", "-F", "--max-files"],
        caches: &[Cache {
            places: &[
                Variable("CCACHE_DIR", ""),
                Variable("XDG_CACHE_HOME", "/ccache"),
                Home("/.cache/ccache"),
            ],
            also: &[Home("/.ccache")],
            ..CACHE
        }],
        off_variables: &["CCACHE_DISABLE"],
        cleans: &[&["-C"], &["--clear"]],
        ..NONE
    },
];
