//! What is in a key: a change of anything that is changes the key and a part of it; a change of anything else neither.

use kiln_core::{
    Bind, CacheMount, CacheScope, Chmod, ContextOp, CopyFrom, CopyOp, CopySource, Digest, Env, InlineFile,
    LayerId, MergeOp, Mount, MountKind, Network, Op, Platform, RunOp, Security, Selection, Sharing, Snapshot,
    StepId, Tmpfs, Unpack, WorkdirOp,
};
use kiln_solver::{KeyInputs, KeyParts, Snapshots, SourceInput, SourceUse, content_key, definition_key};

/// What is changed, and how.
type Change<T> = (&'static str, fn(&mut T));

/// And which keys change with it.
type InputChange = (&'static str, fn(&mut KeyInputs), [bool; 3]);

fn step(name: &str) -> StepId {
    StepId::of(&Op::Context(ContextOp { name: name.to_owned() }))
}

fn env(pairs: &[(&str, &str)]) -> Env {
    let mut env = Env::new();
    for (name, value) in pairs {
        env.push(*name, *value);
    }
    env
}

fn cache() -> CacheMount {
    CacheMount {
        id: "pip".to_owned(),
        scope: CacheScope::Global,
        sharing: Sharing::Shared,
        mode: 0o755,
        uid: 0,
        gid: 0,
        seed: None,
        read_only: false,
    }
}

fn mount(target: &str, kind: MountKind) -> Mount {
    Mount { target: target.to_owned(), kind }
}

fn run() -> RunOp {
    RunOp {
        security: Security::Sandbox,
        root: Some(step("root")),
        args: ["/bin/sh", "-c", "make"].map(str::to_owned).to_vec(),
        env: env(&[("PATH", "/bin"), ("HOME", "/root")]),
        cwd: "/src".to_owned(),
        user: "1000".to_owned(),
        network: Network::Default,
        mounts: vec![
            mount("/cache", MountKind::Cache(cache())),
            mount("/tmp", MountKind::Tmpfs(Tmpfs { size: Some(1 << 20) })),
            mount(
                "/lib",
                MountKind::Bind(Bind { from: step("lib"), path: "/out".to_owned(), writable: false }),
            ),
        ],
        files: vec![InlineFile { name: "EOF".to_owned(), content: "echo".to_owned(), mode: 0o755 }],
        platform: Platform::new("linux", "amd64", None),
        hostname: None,
        machine: Box::default(),
    }
}

fn copy_from(path: &str, wildcard: bool) -> CopySource {
    let selection = Selection { path: path.to_owned(), wildcard, ..Selection::default() };
    CopySource::From(CopyFrom { step: step("lib"), selection })
}

fn copy() -> CopyOp {
    CopyOp {
        unpack: Unpack::Never,
        root: Some(step("root")),
        sources: vec![
            copy_from("a", false),
            CopySource::Inline(InlineFile { name: "f".to_owned(), content: "text".to_owned(), mode: 0o644 }),
        ],
        dest: "/dest".to_owned(),
        dest_is_dir: false,
        chown: Some("user:group".to_owned()),
        chmod: Some(Chmod::Octal(0o644)),
    }
}

fn inputs() -> KeyInputs {
    let source = SourceInput {
        selection: Selection::literal("out"),
        step: Some(Digest::of(b"lib's key")),
        snapshot: Some(Snapshot { layers: vec![LayerId("lib#1".to_owned())] }),
        content: Some(Digest::of(b"files")),
    };
    KeyInputs { root: Some(Digest::of(b"root's key")), layers: None, sources: vec![source] }
}

/// Returns content key, definition key and parts.
fn all(op: &Op, inputs: &KeyInputs) -> (Digest, Digest, KeyParts) {
    let content = content_key(op, inputs).expect("all contents are known");
    (content, definition_key(op, inputs, Snapshots::Left), KeyParts::of(op, inputs))
}

#[test]
fn what_a_run_key_holds() {
    let changes: &[Change<RunOp>] = &[
        ("an argument", |op| op.args[2] = "make all".to_owned()),
        ("an argument split in two", |op| {
            op.args = ["/bin/sh", "-c", "ma", "ke"].map(str::to_owned).to_vec()
        }),
        ("a variable's value", |op| op.env = env(&[("PATH", "/usr/bin"), ("HOME", "/root")])),
        ("a variable's name", |op| op.env = env(&[("PATH", "/bin"), ("HOMES", "/root")])),
        ("a variable more", |op| op.env = env(&[("PATH", "/bin"), ("HOME", "/root"), ("A", "")])),
        ("the variables' order", |op| op.env = env(&[("HOME", "/root"), ("PATH", "/bin")])),
        ("working directory", |op| op.cwd = "/".to_owned()),
        ("user", |op| op.user = String::new()),
        ("network", |op| op.network = Network::None),
        ("host network", |op| op.network = Network::Host),
        ("security", |op| op.security = Security::Insecure),
        ("platform", |op| op.platform = Platform::new("linux", "arm64", None)),
        ("host name", |op| op.hostname = Some("builder".to_owned())),
        ("a host", |op| op.machine.hosts.push(("10.0.0.2".to_owned(), "db".to_owned()))),
        ("shm size", |op| op.machine.shm_size = Some(1 << 20)),
        ("a limit", |op| {
            op.machine.limits.push(kiln_core::Limit { name: "nofile".to_owned(), soft: Some(9), hard: None });
        }),
        ("a cache mount's target", |op| op.mounts[0].target = "/other".to_owned()),
        ("a cache mount less", |op| drop(op.mounts.remove(0))),
        ("the mounts' order", |op| op.mounts.swap(0, 1)),
        ("a tmpfs' size", |op| op.mounts[1].kind = MountKind::Tmpfs(Tmpfs { size: None })),
        ("a bind mount's target", |op| op.mounts[2].target = "/other".to_owned()),
        ("whether a bind is writable", |op| {
            op.mounts[2].kind =
                MountKind::Bind(Bind { from: step("lib"), path: "/out".to_owned(), writable: true });
        }),
        ("a heredoc's text", |op| op.files[0].content = "echo 2".to_owned()),
        ("a heredoc's name", |op| op.files[0].name = "EOT".to_owned()),
        ("a heredoc's mode", |op| op.files[0].mode = 0o644),
    ];
    let before = all(&Op::Run(run()), &inputs());
    for (what, change) in changes {
        let mut op = run();
        change(&mut op);
        let after = all(&Op::Run(op), &inputs());
        assert!(before.0 != after.0 && before.1 != after.1 && before.2 != after.2, "{what} is in each");
    }
}

#[test]
fn what_a_run_key_leaves_out() {
    fn change_cache(op: &mut RunOp, change: impl FnOnce(&mut CacheMount)) {
        let mut changed = cache();
        change(&mut changed);
        op.mounts[0].kind = MountKind::Cache(changed);
    }
    let changes: &[Change<RunOp>] = &[
        ("a cache mount's id", |op| change_cache(op, |cache| cache.id = "other".to_owned())),
        ("a cache mount's scope", |op| {
            change_cache(op, |cache| cache.scope = CacheScope::Platform("linux/amd64".to_owned()));
        }),
        ("a cache mount's sharing", |op| change_cache(op, |cache| cache.sharing = Sharing::Locked)),
        ("a cache mount's mode", |op| change_cache(op, |cache| cache.mode = 0o700)),
        ("a cache mount's owner", |op| change_cache(op, |cache| cache.uid = 1000)),
        ("a cache mount's group", |op| change_cache(op, |cache| cache.gid = 1000)),
        ("a cache mount's seed", |op| {
            change_cache(op, |cache| cache.seed = Some((step("x"), "/".to_owned())))
        }),
        ("the root's step, its key being the same", |op| op.root = Some(step("other"))),
        ("a bind's step, its files being the same", |op| {
            op.mounts[2].kind =
                MountKind::Bind(Bind { from: step("x"), path: "/y".to_owned(), writable: false });
        }),
    ];
    let before = all(&Op::Run(run()), &inputs());
    for (what, change) in changes {
        let mut op = run();
        change(&mut op);
        assert_ne!(op, run(), "{what} changes something");
        assert_eq!(all(&Op::Run(op), &inputs()), before, "{what} is in no key");
    }
}

#[test]
fn what_a_copy_key_holds() {
    let changes: &[Change<CopyOp>] = &[
        ("destination", |op| op.dest = "/other".to_owned()),
        ("whether it is a directory", |op| op.dest_is_dir = true),
        ("owner", |op| op.chown = Some("other".to_owned())),
        ("no owner", |op| op.chown = None),
        ("mode", |op| op.chmod = Some(Chmod::Octal(0o600))),
        ("symbolic mode", |op| op.chmod = Some(Chmod::Symbolic("u=rw".to_owned()))),
        ("archives are unpacked", |op| op.unpack = Unpack::Archives),
        ("no mode", |op| op.chmod = None),
        ("a heredoc", |op| {
            op.sources[1] = CopySource::Inline(InlineFile {
                name: "f".to_owned(),
                content: "other".to_owned(),
                mode: 0o644,
            });
        }),
        ("the sources' order", |op| op.sources.swap(0, 1)),
        ("whether names are wildcards", |op| op.sources[0] = copy_from("a", true)),
    ];
    let before = all(&Op::Copy(copy()), &inputs());
    for (what, change) in changes {
        let mut op = copy();
        change(&mut op);
        let after = all(&Op::Copy(op), &inputs());
        assert!(before.0 != after.0 && before.1 != after.1 && before.2 != after.2, "{what} is in each");
    }
}

#[test]
fn kinds_of_steps_have_different_keys() {
    let workdir = |path: &str, user: &str| {
        Op::Workdir(WorkdirOp { root: None, path: path.to_owned(), user: user.to_owned() })
    };
    let ops = [Op::Run(run()), Op::Copy(copy()), workdir("/a", ""), workdir("/b", ""), workdir("/a", "b")];
    let keys = |key: fn(&Op) -> Digest| ops.iter().map(key).collect::<std::collections::HashSet<_>>().len();
    assert_eq!(keys(|op| all(op, &inputs()).0), ops.len());
    assert_eq!(keys(|op| all(op, &inputs()).1), ops.len());
}

#[test]
fn what_inputs_bring_into_each_key() {
    // Content key, definition key over keys alone, definition key over snapshots.
    let keys = |inputs: &KeyInputs| {
        let op = Op::Copy(copy());
        let definition = |over| definition_key(&op, inputs, over);
        [content_key(&op, inputs).unwrap(), definition(Snapshots::Left), definition(Snapshots::Known)]
    };
    let changes: &[InputChange] = &[
        ("root", |inputs| inputs.root = Some(Digest::of(b"other")), [true; 3]),
        ("scratch as the root", |inputs| inputs.root = None, [true; 3]),
        (
            "a stage's files",
            |inputs| inputs.sources[0].content = Some(Digest::of(b"x")),
            [true, false, false],
        ),
        ("a stage's key", |inputs| inputs.sources[0].step = Some(Digest::of(b"x")), [false, true, true]),
        ("what is taken of it", |inputs| inputs.sources[0].selection.path.push('x'), [false, true, true]),
        ("how it is named", |inputs| inputs.sources[0].selection.wildcard = true, [false, true, true]),
        (
            "a stage's snapshot",
            |inputs| inputs.sources[0].snapshot = Some(Snapshot::default()),
            [false, false, true],
        ),
        ("a snapshot that is gone", |inputs| inputs.sources[0].snapshot = None, [false, false, true]),
        ("a context in place of a stage", |inputs| inputs.sources[0].step = None, [false, true, true]),
        ("a source more", |inputs| inputs.sources.push(inputs.sources[0].clone()), [true; 3]),
    ];
    let before = keys(&inputs());
    for (what, change, expected) in changes {
        let mut inputs = inputs();
        change(&mut inputs);
        let after = keys(&inputs);
        let changed = [0, 1, 2].map(|key| before[key] != after[key]);
        assert_eq!(changed, *expected, "{what} (content key, definition key over keys, over snapshots)");
    }
    let mut inputs = inputs();
    inputs.sources[0].step = None;
    let context = keys(&inputs);
    inputs.sources[0].content = Some(Digest::of(b"other"));
    assert_ne!(context[1], keys(&inputs)[1], "a context's files are in the definition key");
}

#[test]
fn a_content_key_needs_all_contents() {
    let mut inputs = inputs();
    inputs.sources.push(SourceInput { content: None, ..inputs.sources[0].clone() });
    assert_eq!(content_key(&Op::Copy(copy()), &inputs), None);
}

/// Fixed for ever, or until `ENCODING_VERSION` changes: a key that moves makes every user build anew.
#[test]
fn keys_of_a_known_encoding() {
    let golden = |op: Op| {
        let (content, definition, _) = all(&op, &inputs());
        format!("{} {}", content.short(), definition.short())
    };
    let workdir = WorkdirOp { root: None, path: "/a".to_owned(), user: String::new() };
    assert_eq!(kiln_core::ENCODING_VERSION, 2);
    assert_eq!(golden(Op::Run(run())), "781a1bbe2640 3fb3defa9d59");
    assert_eq!(golden(Op::Copy(copy())), "dbd97ccb72d7 506f0a03bf67");
    assert_eq!(golden(Op::Workdir(workdir)), "9cd9d7e737f2 f80b769fb307");
}

#[test]
fn parts_are_named_once_and_read_like_a_dockerfile() {
    let text = |op: Op| {
        let parts = KeyParts::of(&op, &inputs());
        let names: std::collections::HashSet<&str> = parts.0.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names.len(), parts.0.len(), "each name once");
        parts.0.iter().map(|part| format!("{}: {}\n", part.name, part.value)).collect::<String>()
    };
    let (root, files) = (Digest::of(b"root's key"), Digest::of(b"files"));
    let (echo, plain) = (Digest::of(b"echo"), Digest::of(b"text"));
    let expected = format!(
        "encoding: 2\nop: run\narg 1: /bin/sh\narg 2: -c\narg 3: make\n\
         cwd: /src\nuser: 1000\nnetwork: default\nsecurity: sandbox\nmount 1: cache on /cache\n\
         mount 2: tmpfs of 1048576 bytes on /tmp\nmount 3: bind on /lib\nfile 1: EOF mode 0755 {echo}\n\
         platform: linux/amd64\nenv PATH: /bin\nenv HOME: /root\nenv order: PATH HOME\n\
         root: {root}\nsource 1: {files}\n"
    );
    assert_eq!(text(Op::Run(run())), expected);
    let expected = format!(
        "encoding: 2\nop: copy\nfrom 1: files\nfrom 2: f mode 0644 {plain}\ndest: /dest\n\
         dest is directory: false\nchown: user:group\nchmod: 0644\nunpack: never\nroot: {root}\nsource 1: {files}\n"
    );
    assert_eq!(text(Op::Copy(copy())), expected);
}

#[test]
fn an_operation_says_what_it_sees_of_its_sources() {
    let copy = |chmod| SourceUse::of(&Op::Copy(CopyOp { chmod, ..copy() }));
    assert_eq!(copy(None), SourceUse::Copied { modes: true, owners: false });
    assert_eq!(copy(Some(Chmod::Octal(0o644))), SourceUse::Copied { modes: false, owners: false });
    // u=X looks at the bits that are there.
    assert_eq!(
        copy(Some(Chmod::Symbolic("u=X".to_owned()))),
        SourceUse::Copied { modes: true, owners: false }
    );
    let unowned = Op::Copy(CopyOp { chown: None, chmod: None, ..self::copy() });
    assert_eq!(SourceUse::of(&unowned), SourceUse::Copied { modes: true, owners: true });
    assert_eq!(SourceUse::of(&Op::Run(run())), SourceUse::Mounted);
}

#[test]
fn what_the_key_of_a_linked_copy_holds() {
    let op = Op::Merge(MergeOp { root: Some(step("root")), layers: step("lib") });
    let key = |text: &str| Some(Digest::of(text.as_bytes()));
    let inputs = KeyInputs { root: key("root"), layers: key("layers"), sources: Vec::new() };
    let before = all(&op, &inputs);
    let changes: &[Change<KeyInputs>] = &[
        ("the root's key", |inputs| inputs.root = None),
        ("the layers' key", |inputs| inputs.layers = Some(Digest::of(b"other"))),
        ("both, swapped", |inputs| std::mem::swap(&mut inputs.root, &mut inputs.layers)),
    ];
    for (what, change) in changes {
        let mut inputs = inputs.clone();
        change(&mut inputs);
        let after = all(&op, &inputs);
        assert!(before.0 != after.0 && before.1 != after.1 && before.2 != after.2, "{what} is in each");
    }
}
