//! PHP and Ruby.

use super::{CACHE, NONE};
use crate::managers::Place::{Fixed, Home, Variable};
use crate::managers::{Cache, Manager};

pub(super) static MANAGERS: &[Manager] = &[
    // https://getcomposer.org/doc/03-cli.md#composer-cache-dir
    Manager {
        name: "composer",
        programs: &["composer", "composer.phar"],
        downloads: &["install", "i", "update", "u", "upgrade", "require", "create-project", "global require"],
        valued: &["-d", "--working-dir"],
        caches: &[Cache {
            places: &[
                Variable("COMPOSER_CACHE_DIR", ""),
                Variable("COMPOSER_HOME", "/cache"),
                Variable("XDG_CACHE_HOME", "/composer"),
                Home("/.composer/cache"),
            ],
            also: &[Home("/.cache/composer"), Fixed("/tmp/cache")],
            ..CACHE
        }],
        off_flags: &["--no-cache"],
        offline: &["--dry-run", "--help", "--version", "-V"],
        cleans: &[&["clear-cache"], &["clearcache"], &["cc"]],
        ..NONE
    },
    // gems are looked for in the cache directory of the place they are installed to; without GEM_HOME that place has the
    // interpreter's version in its name, which nobody knows: https://guides.rubygems.org/command-reference/
    Manager {
        name: "bundler",
        programs: &["bundle", "bundler"],
        downloads: &["install", "update"],
        bare: true,
        valued: &["--gemfile", "--jobs", "-j", "--retry"],
        caches: &[Cache {
            places: &[Variable("BUNDLE_USER_CACHE", ""), Variable("GEM_HOME", "/cache")],
            also: &[Variable("BUNDLE_PATH", ""), Variable("GEM_HOME", ""), Home("/.bundle"), Home("/.gem")],
            ..CACHE
        }],
        off_flags: &["--no-cache"],
        offline: &["--local", "--help", "--version"],
        ..NONE
    },
    Manager {
        name: "gem",
        programs: &["gem"],
        downloads: &["install", "i", "update"],
        valued: &["-v", "--version", "-i", "--install-dir"],
        caches: &[Cache {
            places: &[Variable("GEM_HOME", "/cache")],
            also: &[Variable("GEM_HOME", ""), Home("/.gem")],
            ..CACHE
        }],
        offline: &["--local", "-l", "--help"],
        ..NONE
    },
];
