//! Python.

use super::{CACHE, NONE};
use crate::managers::Place::{Home, Variable};
use crate::managers::{Cache, Manager};

pub(super) static MANAGERS: &[Manager] = &[
    // https://pip.pypa.io/en/stable/topics/caching/
    Manager {
        name: "pip",
        programs: &["pip", "pip2", "pip3", "pip3."],
        downloads: &["install", "download", "wheel"],
        valued: &["--timeout", "--retries", "--proxy", "--log", "--python", "--cert", "--trusted-host"],
        caches: &[Cache {
            places: &[Variable("PIP_CACHE_DIR", ""), Variable("XDG_CACHE_HOME", "/pip"), Home("/.cache/pip")],
            ..CACHE
        }],
        dir_flags: &["--cache-dir"],
        off_flags: &["--no-cache-dir"],
        offline: &["--no-index", "--dry-run", "--help", "--version"],
        // any value counts, false ones too: pip/_internal/cli/cmdoptions.py
        off_variables: &["PIP_NO_CACHE_DIR"],
        cleans: &[&["cache", "purge"], &["cache", "remove"]],
        ..NONE
    },
    // https://docs.astral.sh/uv/concepts/cache/
    Manager {
        name: "uv",
        programs: &["uv", "uvx"],
        downloads: &[
            "sync",
            "pip install",
            "pip sync",
            "pip compile",
            "add",
            "lock",
            "tool install",
            "tool run",
            "build",
            "run",
        ],
        valued: &["--directory", "--project", "--config-file", "--color", "--cache-dir", "--python", "-p"],
        caches: &[Cache {
            places: &[Variable("UV_CACHE_DIR", ""), Variable("XDG_CACHE_HOME", "/uv"), Home("/.cache/uv")],
            ..CACHE
        }],
        dir_flags: &["--cache-dir"],
        off_flags: &["--no-cache", "--no-cache-dir", "-n"],
        offline: &["--offline", "--no-index", "--no-sync", "--help", "--version", "--dry-run"],
        off_variables: &["UV_NO_CACHE"],
        cleans: &[&["cache", "clean"]],
        ..NONE
    },
    // https://python-poetry.org/docs/configuration/#cache-dir; virtualenvs are kept below the cache too, so the
    // mounts go to the two directories that are downloads
    Manager {
        name: "poetry",
        programs: &["poetry"],
        downloads: &["install", "update", "add", "lock", "sync"],
        valued: &["-C", "--directory", "-P", "--project"],
        caches: &[
            Cache {
                places: &[
                    Variable("POETRY_CACHE_DIR", "/artifacts"),
                    Variable("XDG_CACHE_HOME", "/pypoetry/artifacts"),
                    Home("/.cache/pypoetry/artifacts"),
                ],
                ..CACHE
            },
            Cache {
                places: &[
                    Variable("POETRY_CACHE_DIR", "/cache"),
                    Variable("XDG_CACHE_HOME", "/pypoetry/cache"),
                    Home("/.cache/pypoetry/cache"),
                ],
                essential: false,
                ..CACHE
            },
        ],
        off_flags: &["--no-cache"],
        offline: &["--help", "--version", "--dry-run"],
        cleans: &[&["cache", "clear"]],
        ..NONE
    },
];
