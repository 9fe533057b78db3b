//! Who wins: ARG, ENV, `--build-arg`, global scope, the stage before. Each row is a file, the build arguments, what the
//! last RUN has for X and what the image keeps for X.

use kiln_core::Op;
use kiln_dockerfile::parse;
use kiln_frontend::{BuildPlan, LowerOptions, lower_offline};

type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    Option<&'static str>,
    Option<&'static str>,
);

const PRECEDENCE: &[Row] = &[
    ("default on the line", "FROM a\nARG X=line\nRUN x", &[], Some("line"), None),
    ("--build-arg over the line", "FROM a\nARG X=line\nRUN x", &[("X", "cli")], Some("cli"), None),
    ("empty --build-arg", "FROM a\nARG X=line\nRUN x", &[("X", "")], Some(""), None),
    ("undeclared --build-arg", "FROM a\nRUN x", &[("X", "cli")], None, None),
    ("no value at all", "FROM a\nARG X\nRUN x", &[], None, None),
    ("global, not redeclared", "ARG X=global\nFROM a\nRUN x", &[], None, None),
    ("global, redeclared", "ARG X=global\nFROM a\nARG X\nRUN x", &[], Some("global"), None),
    ("line over global", "ARG X=global\nFROM a\nARG X=line\nRUN x", &[], Some("line"), None),
    ("--build-arg over global", "ARG X=global\nFROM a\nARG X\nRUN x", &[("X", "cli")], Some("cli"), None),
    ("after the RUN", "FROM a\nRUN x\nARG X=line", &[], None, None),
    ("ENV alone", "FROM a\nENV X=env\nRUN x", &[], Some("env"), Some("env")),
    (
        "ENV, then ARG with --build-arg",
        "FROM a\nENV X=env\nARG X\nRUN x",
        &[("X", "cli")],
        Some("cli"),
        Some("env"),
    ),
    ("ENV, then ARG with a default", "FROM a\nENV X=env\nARG X=line\nRUN x", &[], Some("line"), Some("env")),
    ("ENV, then ARG without a value", "FROM a\nENV X=env\nARG X\nRUN x", &[], Some("env"), Some("env")),
    ("ARG, then ENV", "FROM a\nARG X\nENV X=env\nRUN x", &[("X", "cli")], Some("env"), Some("env")),
    (
        "ENV of the parent stage, then ARG",
        "FROM a AS p\nENV X=env\nFROM p\nARG X\nRUN x",
        &[("X", "cli")],
        Some("cli"),
        Some("env"),
    ),
    ("ARG of the parent stage", "FROM a AS p\nARG X=line\nFROM p\nRUN x", &[], Some("line"), None),
    ("ARG of another stage", "FROM a AS p\nARG X=line\nFROM a\nCOPY --from=p x y\nRUN x", &[], None, None),
    ("ARG into ENV", "FROM a\nARG Y=1\nENV X=v$Y\nRUN x", &[], Some("v1"), Some("v1")),
    (
        "ENV of one line sees the line before",
        "FROM a\nENV abc=hello\nENV abc=bye X=$abc\nRUN x",
        &[],
        Some("hello"),
        Some("hello"),
    ),
    ("ARG of one line sees the one before", "FROM a\nARG Y=1 X=v$Y\nRUN x", &[], Some("v1"), None),
    ("single quotes", "FROM a\nENV abc=hello\nENV X='$abc'\nRUN x", &[], Some("$abc"), Some("$abc")),
    ("escaped", "FROM a\nENV abc=hello\nENV X=\\$abc\nRUN x", &[], Some("$abc"), Some("$abc")),
    ("nested default", "FROM a\nENV abc=bye\nENV X=${nope:-x${abc}}\nRUN x", &[], Some("xbye"), Some("xbye")),
    ("alternative", "FROM a\nENV abc=bye\nENV X=${abc:+y}\nRUN x", &[], Some("y"), Some("y")),
    ("alternative without a colon", "FROM a\nENV v=\nENV X=${v+w}\nRUN x", &[], Some("w"), Some("w")),
    ("old form", "FROM a\nENV X one two\nRUN x", &[], Some("one two"), Some("one two")),
    ("platform, not redeclared", "FROM a\nENV X=-$TARGETARCH-\nRUN x", &[], Some("--"), Some("--")),
    (
        "platform, redeclared",
        "FROM a\nARG TARGETARCH\nENV X=$TARGETARCH\nRUN x",
        &[],
        Some("arm64"),
        Some("arm64"),
    ),
    (
        "platform, overwritten",
        "FROM a\nARG TARGETARCH\nENV X=$TARGETARCH\nRUN x",
        &[("TARGETARCH", "z")],
        Some("z"),
        Some("z"),
    ),
    (
        "build platform",
        "FROM a\nARG BUILDPLATFORM\nENV X=$BUILDPLATFORM\nRUN x",
        &[],
        Some("linux/amd64"),
        Some("linux/amd64"),
    ),
    (
        "target stage",
        "FROM a AS last\nARG TARGETSTAGE\nENV X=$TARGETSTAGE\nRUN x",
        &[],
        Some("last"),
        Some("last"),
    ),
    (
        "target stage without a name",
        "FROM a\nARG TARGETSTAGE\nENV X=$TARGETSTAGE\nRUN x",
        &[],
        Some("default"),
        Some("default"),
    ),
    (
        "of the program itself",
        "FROM a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nARG X=$BUILDKIT_SBOM_SCAN_STAGE\nRUN x",
        &[],
        Some(""),
        None,
    ),
];

#[test]
fn the_last_line_wins() {
    for (name, file, build_args, in_run, in_image) in PRECEDENCE {
        let plan = plan(file, build_args);
        let run = last_run_env(&plan);
        let found = run.iter().find(|(name, _)| name == "X").map(|(_, value)| value.as_str());
        assert_eq!(found, *in_run, "in RUN: {name}");
        let kept = plan.images[0].config.config.env.iter().find_map(|line| line.strip_prefix("X="));
        assert_eq!(kept, *in_image, "in the image: {name}");
    }
}

#[test]
fn run_says_in_history_which_arguments_it_saw() {
    let file = "FROM a\nARG A=1\nRUN one\nARG B\nARG A=2\nENV B=env\nRUN two\n";
    let plan = plan(file, &[]);
    let lines: Vec<&str> = plan.images[0].history.iter().map(|line| line.created_by.as_str()).collect();
    assert_eq!(
        lines,
        [
            "ARG A=1",
            "RUN |1 A=1 /bin/sh -c one # buildkit",
            "ARG B",
            "ARG A=2",
            "ENV B=env",
            "RUN |2 A=2 B=env /bin/sh -c two # buildkit",
        ]
    );
}

#[test]
fn an_undeclared_proxy_is_in_no_identity() {
    let with = plan("FROM a\nRUN x", &[("HTTPS_PROXY", "http://p")]);
    let without = plan("FROM a\nRUN x", &[]);
    assert_eq!(with.graph, without.graph);
    assert_eq!(with.images[0].history.len(), 1);
    let pairs = [("HTTPS_PROXY", "http://p"), ("https_proxy", "http://p")];
    assert_eq!(with.run_env, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn an_argument_counts_from_its_line_on() {
    let one = plan("FROM a\nRUN before\nARG X\nRUN after", &[("X", "1")]);
    let two = plan("FROM a\nRUN before\nARG X\nRUN after", &[("X", "2")]);
    let ids = |plan: &BuildPlan| plan.graph.iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(&one)[..2], ids(&two)[..2]);
    assert_ne!(ids(&one)[2], ids(&two)[2]);
}

fn plan(text: &str, build_args: &[(&str, &str)]) -> BuildPlan {
    let (file, _) = parse(text);
    let options = LowerOptions {
        build_args: build_args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        build_platform: Some("linux/amd64".parse().unwrap()),
        platforms: vec!["linux/arm64".parse().unwrap()],
        ..LowerOptions::default()
    };
    lower_offline(&file, &options).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

fn last_run_env(plan: &BuildPlan) -> Vec<(String, String)> {
    let runs = plan.graph.iter().filter_map(|(_, step)| match &step.op {
        Op::Run(run) => Some(run.env.to_vec()),
        _ => None,
    });
    runs.last().expect("a RUN")
}
