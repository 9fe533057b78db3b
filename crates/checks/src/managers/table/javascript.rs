//! JavaScript.

use super::{CACHE, NONE};
use crate::managers::Place::{Fixed, Home, Variable};
use crate::managers::{Cache, Manager};

pub(super) static MANAGERS: &[Manager] = &[
    // https://docs.npmjs.com/cli/configuring-npm/folders#cache
    Manager {
        name: "npm",
        programs: &["npm"],
        downloads: &[
            "ci",
            "clean-install",
            "install",
            "i",
            "in",
            "ins",
            "add",
            "update",
            "up",
            "install-clean",
            "ic",
            "install-test",
            "it",
        ],
        valued: &[
            "--prefix",
            "-C",
            "--registry",
            "--loglevel",
            "--cache",
            "-w",
            "--workspace",
            "--userconfig",
        ],
        caches: &[Cache {
            places: &[Variable("npm_config_cache", ""), Variable("NPM_CONFIG_CACHE", ""), Home("/.npm")],
            ..CACHE
        }],
        dir_flags: &["--cache"],
        offline: &["--offline", "--dry-run", "--package-lock-only", "--help", "--version"],
        cleans: &[&["cache", "clean"], &["cache", "clear"], &["cache", "rm"]],
        ..NONE
    },
    // https://classic.yarnpkg.com/en/docs/cli/cache for 1, run by root it uses /usr/local/share;
    // https://yarnpkg.com/configuration/yarnrc#globalFolder for 2 and later
    Manager {
        name: "yarn",
        programs: &["yarn", "yarnpkg"],
        downloads: &["install", "add", "upgrade", "up", "global add", "workspaces focus"],
        bare: true,
        valued: &[
            "--cwd",
            "--network-timeout",
            "--registry",
            "--cache-folder",
            "--modules-folder",
            "--mutex",
        ],
        caches: &[Cache {
            places: &[
                Variable("YARN_CACHE_FOLDER", ""),
                Variable("XDG_CACHE_HOME", "/yarn"),
                Fixed("/usr/local/share/.cache/yarn"),
            ],
            also: &[
                Variable("YARN_GLOBAL_FOLDER", ""),
                Variable("XDG_DATA_HOME", "/yarn/berry"),
                Home("/.yarn"),
                Home("/.cache/yarn"),
                Home("/.yarn/berry"),
            ],
            ..CACHE
        }],
        dir_flags: &["--cache-folder"],
        offline: &["--offline", "--help", "--version", "-v"],
        cleans: &[&["cache", "clean"]],
        ..NONE
    },
    // https://pnpm.io/settings#storedir
    Manager {
        name: "pnpm",
        programs: &["pnpm"],
        downloads: &["install", "i", "fetch", "add", "update", "up"],
        valued: &["-C", "--dir", "--filter", "-F", "--store-dir", "--registry", "--loglevel", "--reporter"],
        caches: &[Cache {
            places: &[
                Variable("npm_config_store_dir", ""),
                Variable("NPM_CONFIG_STORE_DIR", ""),
                Variable("PNPM_HOME", "/store"),
                Variable("XDG_DATA_HOME", "/pnpm/store"),
                Home("/.local/share/pnpm/store"),
            ],
            ..CACHE
        }],
        dir_flags: &["--store-dir"],
        offline: &["--offline", "--lockfile-only", "--help", "--version"],
        cleans: &[&["store", "prune"]],
        ..NONE
    },
    // https://bun.sh/docs/install/cache
    Manager {
        name: "bun",
        programs: &["bun"],
        downloads: &["install", "i", "add", "update"],
        valued: &["--cwd", "--config", "-c", "--cache-dir", "--registry"],
        caches: &[Cache {
            places: &[
                Variable("BUN_INSTALL_CACHE_DIR", ""),
                Variable("BUN_INSTALL", "/install/cache"),
                Variable("XDG_CACHE_HOME", "/.bun/install/cache"),
                Home("/.bun/install/cache"),
            ],
            ..CACHE
        }],
        dir_flags: &["--cache-dir"],
        off_flags: &["--no-cache"],
        offline: &["--dry-run", "--help"],
        cleans: &[&["pm", "cache", "rm"]],
        ..NONE
    },
];
