//! Where package managers leave what they fetched, and which cache mount keeps it out of an image. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a package manager left in a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLeft {
    /// Whose: `apt`, `pip`.
    pub what: String,
    /// The directory.
    pub path: String,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The flag of RUN that keeps them out.
    pub mount: String,
}

/// Directories, whose they are, and what their mount says besides. `~` is anybody's home directory. The first that fits is
/// meant. As the manuals have them; apt and dpkg may not share a directory with themselves.
const PLACES: &[(&str, &str, &str)] = &[
    ("var/lib/apt/lists", "apt", ",sharing=locked"),
    ("var/cache/apt", "apt", ",sharing=locked"),
    ("var/cache/apk", "apk", ",sharing=locked"),
    ("etc/apk/cache", "apk", ",sharing=locked"),
    ("var/cache/dnf", "dnf", ",sharing=locked"),
    ("var/cache/libdnf5", "dnf", ",sharing=locked"),
    ("var/cache/yum", "yum", ",sharing=locked"),
    ("var/cache/zypp", "zypper", ",sharing=locked"),
    ("var/cache/pacman/pkg", "pacman", ",sharing=locked"),
    ("~/.cache/pip", "pip", ""),
    ("~/.cache/uv", "uv", ""),
    ("~/.cache/pypoetry", "poetry", ""),
    ("~/.npm", "npm", ""),
    ("~/.cache/yarn", "yarn", ""),
    ("usr/local/share/.cache/yarn", "yarn", ""),
    ("~/.yarn/berry/cache", "yarn", ""),
    ("~/.local/share/pnpm/store", "pnpm", ""),
    ("~/.cache/pnpm", "pnpm", ""),
    ("~/.cargo/registry", "cargo", ""),
    ("~/.cargo/git", "cargo", ""),
    ("usr/local/cargo/registry", "cargo", ""),
    ("usr/local/cargo/git", "cargo", ""),
    ("~/go/pkg/mod", "go", ""),
    ("go/pkg/mod", "go", ""),
    ("~/.cache/go-build", "go", ""),
    ("~/.m2/repository", "maven", ""),
    ("~/.gradle/caches", "gradle", ""),
    ("~/.composer/cache", "composer", ""),
    ("~/.cache/composer", "composer", ""),
    ("~/.nuget/packages", "nuget", ""),
    ("~/.bun/install/cache", "bun", ""),
    ("usr/local/bundle/cache", "bundler", ""),
    ("opt/conda/pkgs", "conda", ""),
    ("~/.cache", "cache", ""),
];

/// Directories for what nobody needs afterwards.
const TEMPORARY: [&str; 2] = ["tmp", "var/tmp"];

/// Counts what was left, file by file.
#[derive(Debug, Default)]
pub(super) struct Left(BTreeMap<String, CacheLeft>);

impl Left {
    /// Counts a file, if it is in such a directory.
    pub(super) fn see(&mut self, path: &[u8], bytes: u64) {
        let Some((dir, what, options)) = place(path) else { return };
        let path = format!("/{}", String::from_utf8_lossy(dir));
        let left = self.0.entry(path.clone()).or_insert_with(|| {
            let mount = mount(dir, what, options);
            CacheLeft { what: what.to_owned(), path, files: 0, bytes: 0, mount }
        });
        left.files += 1;
        left.bytes += bytes;
    }

    /// Returns what takes any room, the largest first.
    pub(super) fn finish(self) -> Vec<CacheLeft> {
        let mut found: Vec<CacheLeft> = self.0.into_values().filter(|left| left.bytes > 0).collect();
        found.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
        found
    }
}

/// The flag of RUN that keeps a path out of an image, and whose it is.
pub(in crate::engine) fn keeps_out(path: &[u8]) -> Option<(&'static str, String)> {
    place(path).map(|(dir, what, options)| (what, mount(dir, what, options)))
}

fn mount(dir: &[u8], what: &str, options: &str) -> String {
    let path = String::from_utf8_lossy(dir);
    match what {
        "temporary" => format!("--mount=type=tmpfs,target=/{path}"),
        _ => format!("--mount=type=cache,target=/{path}{options}"),
    }
}

/// The directory that a path is in, whose it is, and its mount's options.
fn place(path: &[u8]) -> Option<(&[u8], &'static str, &'static str)> {
    let home = home(path);
    let known = PLACES.iter().find_map(|(place, what, options)| {
        let length = match place.strip_prefix('~') {
            Some(rest) => {
                let (home, inside) = path.split_at(home?);
                home.len() + inside.starts_with(rest.as_bytes()).then_some(rest.len())?
            }
            None => path.starts_with(place.as_bytes()).then_some(place.len())?,
        };
        (path.get(length) == Some(&b'/')).then(|| (&path[..length], *what, *options))
    });
    known.or_else(|| {
        let dir = TEMPORARY
            .into_iter()
            .find(|dir| path.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.starts_with(b"/")))?;
        Some((&path[..dir.len()], "temporary", ""))
    })
}

/// How long the home directory is that a path begins with.
fn home(path: &[u8]) -> Option<usize> {
    if path.starts_with(b"root/") {
        return Some(4);
    }
    let rest = path.strip_prefix(b"home/")?;
    rest.iter().position(|&byte| byte == b'/').map(|length| length + 5)
}

#[cfg(test)]
mod tests {
    use super::Left;

    #[test]
    fn whose_it_is_and_what_keeps_it_out() {
        let rows = [
            (
                "var/lib/apt/lists/x_Packages",
                "apt --mount=type=cache,target=/var/lib/apt/lists,sharing=locked",
            ),
            ("var/cache/apt/archives/a.deb", "apt --mount=type=cache,target=/var/cache/apt,sharing=locked"),
            ("var/cache/apk/APKINDEX", "apk --mount=type=cache,target=/var/cache/apk,sharing=locked"),
            ("root/.cache/pip/http/a", "pip --mount=type=cache,target=/root/.cache/pip"),
            ("home/app/.cache/pip/a", "pip --mount=type=cache,target=/home/app/.cache/pip"),
            ("root/.cache/other/a", "cache --mount=type=cache,target=/root/.cache"),
            ("root/.npm/_cacache/a", "npm --mount=type=cache,target=/root/.npm"),
            ("usr/local/cargo/registry/cache/a", "cargo --mount=type=cache,target=/usr/local/cargo/registry"),
            ("go/pkg/mod/cache/a", "go --mount=type=cache,target=/go/pkg/mod"),
            ("root/go/pkg/mod/a", "go --mount=type=cache,target=/root/go/pkg/mod"),
            ("tmp/a", "temporary --mount=type=tmpfs,target=/tmp"),
            ("var/tmp/a", "temporary --mount=type=tmpfs,target=/var/tmp"),
            ("root/.cache", ""),
            ("root/.cached/a", ""),
            ("tmpfile", ""),
            ("srv/tmp/a", ""),
            ("home/.cache/a", ""),
            ("var/lib/apt/extended_states", ""),
        ];
        for (path, expected) in rows {
            let mut left = Left::default();
            left.see(path.as_bytes(), 2);
            left.see(path.as_bytes(), 3);
            let found: Vec<String> =
                left.finish().iter().map(|left| format!("{} {}", left.what, left.mount)).collect();
            assert_eq!(found.join(" "), expected, "{path}");
        }
    }

    #[test]
    fn they_are_summed_and_empty_ones_left_out() {
        let mut left = Left::default();
        for (path, bytes) in [("tmp/a", 1), ("root/.npm/a", 5), ("tmp/b", 2), ("var/lib/apt/lists/lock", 0)] {
            left.see(path.as_bytes(), bytes);
        }
        let found = left.finish();
        let found: Vec<_> = found.iter().map(|left| (left.what.as_str(), left.files, left.bytes)).collect();
        assert_eq!(found, [("npm", 1, 5), ("temporary", 2, 3)]);
    }
}
