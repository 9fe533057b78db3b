//! Flags that docker has and kiln has not: people type them by reflex, and shall read why nothing happens.

/// Returns why a flag of `kiln build` or `kiln run` is not there.
pub(crate) fn reason(flag: &str) -> Option<&'static str> {
    let known = FLAGS.iter().find(|(names, _)| names.split(' ').any(|name| name == flag));
    known.map(|(_, reason)| *reason)
}

const FLAGS: &[(&str, &str)] = &[
    ("--squash", "layers are kept apart, so that they are shared; `-o type=tar` has the files in one piece"),
    (
        "--cpu-shares -c --cpuset-mems --cgroup-parent --memory-reservation --kernel-memory --blkio-weight",
        "kiln has --memory, --cpus, --cpuset-cpus and --pids-limit; for more, run it inside `systemd-run --user --scope`",
    ),
    ("--security-opt", "each step runs in namespaces of its own; there is nothing to choose"),
    ("--builder --context", "there is no daemon and so nothing to choose between"),
    ("-d --detach --name --restart", "`kiln run` is a look into an image; what it runs ends with it"),
    (
        "--volumes-from --link --cidfile",
        "there are no containers: `kiln run` is one process, and it ends with it",
    ),
    ("-p --publish -P --publish-all", "write `kiln run --network=host`: ports are open there as they are"),
    ("--volumes", "kiln has no volumes; `kiln prune --cache-mounts` takes cache mounts"),
    ("--privileged --cap-add --cap-drop --device", "`kiln run` gives what a RUN step has, no more"),
];

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn known_flags_have_a_reason() {
        assert!(reason("--squash").is_some_and(|text| text.contains("type=tar")));
        assert!(reason("-c").is_some());
        assert_eq!(reason("--squashh"), None);
        assert_eq!(reason(""), None);
    }
}
