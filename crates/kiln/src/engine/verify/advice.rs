//! What is known of paths that differ from build to build: why, and what helps. Pure.
//!
//! Tried with Debian's apt and pip: docs/reproducible.md has what a second build of real Dockerfiles finds.

use crate::engine::layer_report::keeps_out;

/// Returns a sentence about a path (without a slash at its start) that differs in a field; `at` is the first byte of its content
/// that does.
pub(super) fn advice(path: &[u8], field: &str, at: Option<u64>) -> Option<String> {
    let under = |dir: &str| path.starts_with(dir.as_bytes());
    let ends = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end.as_bytes()));
    if let Some((what, mount)) = keeps_out(path) {
        let whose =
            if what == "temporary" { "a temporary file".to_owned() } else { format!("{what}'s own cache") };
        return Some(format!("{whose} is in no layer with RUN {mount}"));
    }
    let known = match field {
        _ if path == b"var/cache/ldconfig/aux-cache" => {
            "ldconfig keeps inode numbers and times in /var/cache/ldconfig and does without: remove it at the end of the step"
        }
        _ if under("var/log/") => "logs have times and go on growing: remove them at the end of the step",
        _ if ends(&["etc/machine-id", "var/lib/dbus/machine-id"]) => {
            "a machine's id is drawn by lot: leave it empty, `: >/etc/machine-id`; it is filled at the first boot"
        }
        _ if under("etc/ssh/ssh_host_") => {
            "a host's keys in an image are everybody's: make them when a container starts"
        }
        "content" | "path" if under("etc/shadow") => {
            "useradd and chpasswd write the day (with ARG SOURCE_DATE_EPOCH in the stage: that day), and passwords are salted by lot"
        }
        // PEP 552: flags in bytes 4 to 8, then the source's time, or its hash.
        "content" if ends(&[".pyc"]) && at.is_some_and(|at| (8..12).contains(&at)) => {
            "Python keeps its source's time in what it compiles: with ARG SOURCE_DATE_EPOCH in the stage it keeps a hash instead"
        }
        // RFC 1952: the time in bytes 4 to 8.
        "content" if ends(&["gz", ".svgz"]) && at.is_some_and(|at| (4..8).contains(&at)) => {
            "gzip keeps the time: `gzip -n` does not"
        }
        "content" if ends(&[".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst"]) => {
            "tar takes files as directories list them: `tar --sort=name --mtime=@$SOURCE_DATE_EPOCH`, with that ARG in the stage"
        }
        "content" if ends(&[".zip", ".jar", ".war", ".whl"]) => {
            "zip keeps times, and files as directories list them: `find . | LC_ALL=C sort | zip -X -@`, after `touch -d @$SOURCE_DATE_EPOCH`"
        }
        _ => return None,
    };
    Some(known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn what_is_known_of_a_path_is_said() {
        let rows = [
            ("var/lib/apt/lists/x_Packages", "content", Some(3), "type=cache,target=/var/lib/apt/lists"),
            (
                "tmp/left",
                "path",
                None,
                "a temporary file is in no layer with RUN --mount=type=tmpfs,target=/tmp",
            ),
            ("var/cache/ldconfig/aux-cache", "content", Some(1616), "ldconfig"),
            ("var/log/dpkg.log", "content", Some(17), "logs"),
            ("etc/machine-id", "content", Some(0), "by lot"),
            ("etc/ssh/ssh_host_rsa_key", "content", Some(60), "keys"),
            ("etc/shadow", "content", Some(300), "the day"),
            ("a/__pycache__/b.cpython-311.pyc", "content", Some(8), "SOURCE_DATE_EPOCH"),
            ("usr/share/x.gz", "content", Some(4), "gzip -n"),
            ("t.tar", "content", Some(512), "--sort=name"),
            ("t.tar.gz", "content", Some(40), "--sort=name"),
            ("a.jar", "content", Some(10), "zip"),
        ];
        for (path, field, at, word) in rows {
            let said = advice(path.as_bytes(), field, at);
            assert!(said.as_ref().is_some_and(|said| said.contains(word)), "{path}: {said:?}");
        }
        let rows = [
            ("usr/bin/app", "content", Some(8)),
            // Other code, not another time.
            ("a/b.pyc", "content", Some(16)),
            ("a/b.pyc", "mode", None),
            ("etc/shadow", "mode", None),
        ];
        for (path, field, at) in rows {
            assert_eq!(advice(path.as_bytes(), field, at), None, "{path}");
        }
    }
}
