//! `--mount` by table: what is written, and what it is in the plan or why it is refused.

use kiln_core::{MountKind, Op};
use kiln_dockerfile::{Severity, parse};
use kiln_frontend::{LowerOptions, lower_offline, print};

const MEANINGS: &[(&str, &str)] = &[
    // bind: the default type, read-only, from the build context
    ("target=/t", r#"bind:/t from=context source="/""#),
    ("TYPE=bind,TARGET=/t", r#"bind:/t from=context source="/""#),
    ("type=BIND,dst=/t,rw", r#"bind:/t from=context source="/" rw"#),
    ("type=bind,destination=/t,readwrite=true", r#"bind:/t from=context source="/" rw"#),
    ("type=bind,target=/t,rw=false", r#"bind:/t from=context source="/""#),
    ("type=bind,target=/t,readonly=0", r#"bind:/t from=context source="/" rw"#),
    ("type=bind,target=/t,rw,ro", r#"bind:/t from=context source="/""#),
    ("type=bind,target=/t,source=../a/./b/", r#"bind:/t from=context source="/a/b""#),
    ("type=bind,target=/t,src=$DIR/x", r#"bind:/t from=context source="/d/x""#),
    ("type=bind,target=/t,from=first", r#"bind:/t from=image source="/""#),
    ("type=bind,target=/t,from=0,source=/etc", r#"bind:/t from=image source="/etc""#),
    ("type=bind,target=/t,from=busybox", r#"bind:/t from=image source="/""#),
    // cache: the id is the cleaned target and then belongs to a platform
    ("type=cache,target=/c", r#"cache:/c id="/c" scope=linux/amd64 sharing=shared"#),
    ("type=cache,target=/c/../d//", r#"cache:/d id="/d" scope=linux/amd64 sharing=shared"#),
    ("type=cache,target=rel", r#"cache:/w/rel id="/w/rel" scope=linux/amd64 sharing=shared"#),
    ("type=cache,target=/c,id=k", r#"cache:/c id="k" scope=global sharing=shared"#),
    ("type=cache,target=/c,id=", r#"cache:/c id="/c" scope=linux/amd64 sharing=shared"#),
    ("type=cache,target=$DIR,id=${DIR}-k", r#"cache:/d id="/d-k" scope=global sharing=shared"#),
    ("type=cache,target=/c,sharing=locked", r#"cache:/c id="/c" scope=linux/amd64 sharing=locked"#),
    ("type=cache,target=/c,sharing=Private", r#"cache:/c id="/c" scope=linux/amd64 sharing=private"#),
    ("type=cache,target=/c,mode=0755,uid=0", r#"cache:/c id="/c" scope=linux/amd64 sharing=shared"#),
    (
        "type=cache,target=/c,mode=700",
        r#"cache:/c id="/c" scope=linux/amd64 sharing=shared mode=0700 uid=0 gid=0"#,
    ),
    (
        "type=cache,target=/c,uid=1,gid=2",
        r#"cache:/c id="/c" scope=linux/amd64 sharing=shared mode=0755 uid=1 gid=2"#,
    ),
    ("type=cache,target=/c,ro", r#"cache:/c id="/c" scope=linux/amd64 sharing=shared ro"#),
    (
        "type=cache,target=/c,from=first,source=s",
        r#"cache:/c id="/c" scope=linux/amd64 sharing=shared seed=image:"/s""#,
    ),
    ("type=cache,target=/c,from=scratch", r#"cache:/c id="/c" scope=linux/amd64 sharing=shared"#),
    // tmpfs
    ("type=tmpfs,target=/t", "tmpfs:/t"),
    ("type=tmpfs,target=/t,size=64m", "tmpfs:/t size=67108864"),
    ("type=tmpfs,target=/t,size=1.5KiB", "tmpfs:/t size=1536"),
    ("type=tmpfs,target=/t,size=4096", "tmpfs:/t size=4096"),
    ("type=tmpfs,target=/t,size=0", "tmpfs:/t"),
    // nobody can write to it, so it is as good as nothing at all
    ("type=tmpfs,target=/t,ro", r#"bind:/t from=copy source="/""#),
    ("target=/t,from=scratch", r#"bind:/t from=copy source="/""#),
    // secret: a file, unless only a variable is asked for
    ("type=secret,id=tok", r#"secret:/run/secrets/tok id="tok""#),
    ("type=secret,id=a/b.txt", r#"secret:/run/secrets/b.txt id="a/b.txt""#),
    ("type=secret,source=tok", r#"secret:/run/secrets/tok id="tok""#),
    ("type=secret,src=tok,target=/t", r#"secret:/t id="tok""#),
    ("type=secret,target=/etc/key.pem", r#"secret:/etc/key.pem id="key.pem""#),
    ("type=secret,id=tok,target=rel", r#"secret:/w/rel id="tok""#),
    ("type=secret,id=tok,env=TOKEN", r#"secret: id="tok" env="TOKEN""#),
    ("type=secret,id=tok,env=TOKEN,target=/t", r#"secret:/t id="tok" env="TOKEN""#),
    ("type=secret,id=tok,required", r#"secret:/run/secrets/tok id="tok" required"#),
    ("required=true,type=secret,id=tok", r#"secret:/run/secrets/tok id="tok" required"#),
    ("type=secret,id=tok,required=false", r#"secret:/run/secrets/tok id="tok""#),
    ("type=secret,id=tok,mode=0440,uid=1,gid=2", r#"secret:/run/secrets/tok id="tok" mode=0440 uid=1 gid=2"#),
    ("type=secret,id=tok,uid=1", r#"secret:/run/secrets/tok id="tok" mode=0400 uid=1 gid=0"#),
    ("type=secret,id=tok,ro", r#"secret:/run/secrets/tok id="tok""#),
    // ssh
    ("type=ssh", r#"ssh:/run/buildkit/ssh_agent.0 id="default""#),
    ("type=$KIND", r#"ssh:/run/buildkit/ssh_agent.0 id="default""#),
    ("type=ssh,id=work,target=/s,required", r#"ssh:/s id="work" required"#),
    ("type=ssh,mode=0666,uid=5", r#"ssh:/run/buildkit/ssh_agent.0 id="default" mode=0666 uid=5 gid=0"#),
    (
        "type=ssh --mount=type=ssh,id=b,target=/b --mount=type=ssh,id=c",
        r#"ssh:/run/buildkit/ssh_agent.0 id="default", ssh:/b id="b", ssh:/run/buildkit/ssh_agent.2 id="c""#,
    ),
];

const REFUSALS: &[(&str, &str)] = &[
    ("type=bind", "a mount needs a target: write `target=/path`"),
    ("type=cache,target=$EMPTY", "a mount needs a target: write `target=/path`"),
    ("target=/", "nothing can be mounted on `/`"),
    ("type=cache,target=..", "nothing can be mounted on `/`"),
    (
        "type=cahce,target=/c",
        "unknown mount type `cahce`: there are bind, cache, tmpfs, secret, ssh; did you mean `cache`?",
    ),
    (
        "type=cache,target=/c,sharing=lock",
        "unknown sharing `lock`: there are shared, locked, private; did you mean `locked`?",
    ),
    ("type=bind,target=/t,uid=1", "`uid` is not allowed on a mount of type bind"),
    ("type=tmpfs,target=/t,mode=0700", "`mode` is not allowed on a mount of type tmpfs"),
    ("target=/t,gid=1", "`gid` is not allowed on a mount of type bind"),
    ("type=cache,target=/c,size=1", "`size` is not allowed on a mount of type cache"),
    ("type=bind,target=/t,sharing=shared", "`sharing` is not allowed on a mount of type bind"),
    ("type=cache,target=/c,required", "`required` is only for mounts of type secret and ssh"),
    ("type=cache,target=/c,required=true", "`required` is only for mounts of type secret and ssh"),
    ("type=cache,target=/c,env=X", "`env` is only for mounts of type secret"),
    ("type=cache,target=/c,mode=9", "`mode=9`: write octal permission bits, such as 0755"),
    ("type=cache,target=/c,uid=root", "`uid=root`: write a number"),
    ("type=cache,target=/c,ro=yes", "`ro=yes`: write true or false"),
    ("type=tmpfs,target=/t,size=big", "`size=big`: write a size, such as 512m or 1g"),
    ("type=secret", "a secret needs an id or a target: write `id=NAME`"),
    ("type=secret,env=TOKEN", "a secret needs an id or a target: write `id=NAME`"),
    ("type=secret,id=/", "`/` names no secret"),
    ("type=secret,id=x,target=/", "nothing can be mounted on `/`"),
    ("type=secret,id=x,from=first", "`from` is not allowed on a mount of type secret"),
    (
        "type=secret,id=x,source=y",
        "`source` and `id` name the same on a mount of type secret: write one of them",
    ),
    ("type=secret,id=x,sharing=locked", "`sharing` is not allowed on a mount of type secret"),
    ("type=secret,id=x,size=1", "`size` is not allowed on a mount of type secret"),
    ("type=secret,id=x,env=", "`env=`: write a variable's name"),
    ("type=secret,id=x,env=A=B", "`env=A=B`: write a variable's name"),
    ("type=secret,id=x,required=maybe", "`required=maybe`: write true or false"),
    ("type=secret,id=x,mode=rw", "`mode=rw`: write octal permission bits, such as 0755"),
    ("type=ssh,source=x", "`source` is not allowed on a mount of type ssh"),
    ("type=ssh,env=X", "`env` is only for mounts of type secret"),
    ("type=ssh,sharing=shared", "`sharing` is not allowed on a mount of type ssh"),
    (
        "type=cache,target=/c,source=x",
        "`source` on a cache mount needs `from`: it says what a new cache starts with",
    ),
    ("target=/t,from=Bad:", "\"Bad:\" is not an image reference"),
    ("target=/t,targt=/u", "--mount has no key `targt` (in `targt=/u`); did you mean `target`?"),
    ("target=/t,from=$DIR", "variables do not work in from=$DIR"),
];

#[test]
fn mounts_mean_what_the_reference_says() {
    for (written, wanted) in MEANINGS {
        let plan = plan(written).unwrap_or_else(|error| panic!("{written}: {error}"));
        let start = plan.find("mounts=[").unwrap() + "mounts=[".len();
        let end = plan[start..].find("] args=").unwrap() + start;
        let mut got = plan[start..end].to_owned();
        for line in plan.lines().take_while(|line| !line.starts_with("result")) {
            let mut words = line.split(' ');
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            got = got.replace(&format!("from={name} "), &format!("from={kind} "));
            got = got.replace(&format!("seed={name}:"), &format!("seed={kind}:"));
        }
        assert_eq!(got, *wanted, "{written}");
    }
}

#[test]
fn mounts_that_cannot_be_are_refused() {
    for (written, wanted) in REFUSALS {
        match plan(written) {
            Ok(plan) => panic!("{written} is taken:\n{plan}"),
            Err(error) => assert!(error.starts_with(wanted), "{written}: {error}"),
        }
    }
}

#[test]
fn mode_and_owner_are_not_identity() {
    // BuildKit makes a second, empty cache of the same target here (buildkit#3041).
    let (file, _) = parse(
        "FROM a\nRUN --mount=type=cache,target=/c x\nRUN --mount=type=cache,target=/c,mode=0700,uid=5 x\n",
    );
    let plan = lower_offline(&file, &LowerOptions::default()).unwrap();
    let mut caches = plan.graph.iter().filter_map(|(_, step)| match &step.op {
        Op::Run(run) => match &run.mounts[0].kind {
            MountKind::Cache(cache) => Some((cache.id.clone(), cache.scope.clone())),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(caches.next().unwrap(), caches.next().unwrap());
}

/// The plan of a file with this mount, or the first error.
fn plan(mount: &str) -> Result<String, String> {
    let text = format!(
        "FROM alpine AS first\nFROM scratch\nARG DIR=/d\nARG KIND=ssh\nARG EMPTY=\nWORKDIR /w\nRUN --mount={mount} x\n"
    );
    let (file, found) = parse(&text);
    let say = |all: Vec<kiln_dockerfile::Diagnostic>| {
        let first = all.into_iter().find(|one| one.severity == Severity::Error)?;
        assert!(first.span.end > first.span.start, "{mount}: no place");
        Some(first.message + &first.help.map(|help| format!("; {help}")).unwrap_or_default())
    };
    if let Some(error) = say(found) {
        return Err(error);
    }
    let options =
        LowerOptions { build_platform: Some("linux/amd64".parse().unwrap()), ..LowerOptions::default() };
    match lower_offline(&file, &options) {
        Ok(built) => Ok(print::plan(&built)),
        Err(errors) => Err(say(errors).expect("an error")),
    }
}
