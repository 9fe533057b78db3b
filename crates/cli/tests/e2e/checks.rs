//! `--check`, `--call`, `debug check`, and warnings of a build.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::place::Place;
use crate::user::{for_each_user, users};

const FILE: &str = "\
# VERSION is what to build
ARG VERSION=1
# base has the tools
FROM scratch as base
ARG EXTRA
COPY $nothing /a
# out is the result
FROM base AS out
RUN --mount=type=secret,id=key,required=true --mount=type=cache,target=/c true
";

fn place(text: &str) -> Place {
    let place = Place::new(users()[0]);
    place.dockerfile(text);
    place
}

#[test]
fn a_check_says_what_buildx_says_and_builds_nothing() {
    let place = place(FILE);
    let said = place.build(&["--check"]).ok().out();
    assert!(
        said.starts_with("Check complete, 2 warnings have been found!\n\nWARNING: FromAsCasing - https://"),
        "{said}"
    );
    assert!(said.contains(":4\n--------------------\n"), "{said}");
    assert!(said.contains("\n   4 | >>> FROM scratch as base\n"), "{said}");
    assert_eq!(place.build(&["--call=check"]).ok().out(), said);
    assert_eq!(place.build(&["--call=check", "--target", "out"]).ok().out(), said);
    let json: Value =
        serde_json::from_str(&place.build(&["--call=check,format=json"]).ok().out()).expect("JSON");
    assert_eq!(json["warnings"][1]["ruleName"], "UndefinedVar");
    assert_eq!(json["warnings"][1]["location"]["ranges"][0]["start"]["line"], 6);
    assert_eq!(json["buildError"], Value::Null);
    place.dockerfile("FROM scratch\nCOPY a /\n");
    assert_eq!(place.build(&["--check"]).ok().out(), "Check complete, no warnings found.\n");
}

#[test]
fn findings_fail_only_where_the_file_says_so() {
    let place = place("# check=error=true\nFROM scratch as a\nCOPY <<eof /x\ntext\neof\n");
    place.build(&["--check"]).code(1).says(&["`error=true` makes findings a failure: FromAsCasing"]);
    place.build(&[]).code(2).says(&["makes that a failure: FromAsCasing"]);
    place
        .build(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=FromAsCasing"])
        .ok()
        .lacks(&["FromAsCasing"]);
    place.build(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=false"]).ok().says(&["FromAsCasing: "]);
}

#[test]
fn a_file_that_cannot_be_built_is_told_with_what_was_found_above() {
    let place = place("FROM scratch AS Bad\nMAINTAINER a\nBADCMD\n");
    let file = place.path("context/Dockerfile");
    let file = file.to_str().expect("a path");
    let ran = place.kiln(&["debug", "check", file]).code(2).says(&["unknown instruction: BADCMD"]);
    assert_eq!(ran.out(), "StageNameCasing:1\nMaintainerDeprecated:2\n");
    place.build(&["--check"]).code(2).says(&["unknown instruction: BADCMD"]);
    place.build(&["--call=nothing"]).code(2).says(&["none of build, check, outline, targets"]);
}

#[test]
fn targets_and_what_they_take() {
    let place = place(FILE);
    assert_eq!(
        place.build(&["--call=targets"]).ok().out(),
        "TARGET        DESCRIPTION\nbase          has the tools\nout (default) is the result\n"
    );
    let json: Value =
        serde_json::from_str(&place.build(&["--call=targets,format=json"]).ok().out()).expect("JSON");
    assert_eq!(json["targets"][1]["base"], "base");
    assert_eq!(json["targets"][1]["default"], true);
    let said = place.build(&["--call=outline", "--build-arg", "EXTRA=x"]).ok().out();
    assert_eq!(
        said.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"),
        "TARGET:      out\nDESCRIPTION: is the result\n\n\
         BUILD ARG   VALUE   DESCRIPTION\nEXTRA       x\n\n\
         SECRET   REQUIRED\nkey      true\n\n\
         CACHE MOUNT\n/c"
    );
    place.dockerfile(
        "# VERSION is what to build\nARG VERSION=1\nARG TAG=v$VERSION\nFROM debian:$TAG\nARG VERSION\n",
    );
    let json: Value =
        serde_json::from_str(&place.build(&["--call=outline,format=json"]).ok().out()).expect("JSON");
    let args = json["args"].as_array().expect("arguments");
    let told: Vec<_> = args.iter().map(|arg| (&arg["name"], &arg["value"], &arg["description"])).collect();
    assert_eq!(
        told,
        [
            (&Value::from("VERSION"), &Value::from("1"), &Value::from("is what to build")),
            (&Value::from("TAG"), &Value::from("v1"), &Value::Null)
        ]
    );
}

#[test]
fn fixes_rewrite_the_file_and_nothing_else_in_it() {
    for_each_user(|user| {
        let place = Place::new(user);
        let text = "FROM debian as base\r\n# a comment  \r\nENV old value\r\nRUN apt-get update && apt-get install -y curl   \r\n";
        place.mode("context/Dockerfile", text, 0o640);
        let args = ["build", "--check", "--fix", "context"];
        place.kiln(&args).ok().says(&[
            "fixed FromAsCasing",
            "fixed LegacyKeyValueFormat",
            "fixed CacheMountMissing",
        ]);
        let fixed = place.read("context/Dockerfile");
        assert!(
            fixed.starts_with(
                "FROM debian AS base\r\n# a comment  \r\nENV old=value\r\nRUN --mount=type=cache,"
            ),
            "{fixed:?}"
        );
        assert!(fixed.ends_with("apt-get update && apt-get install -y curl   \r\n"), "{fixed:?}");
        let mode = std::fs::metadata(place.path("context/Dockerfile")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        place.kiln(&args).ok().says(&["nothing that could be fixed"]);
        assert_eq!(place.read("context/Dockerfile"), fixed);
        place.kiln(&["build", "--fix", "context"]).code(2).says(&["--check --fix"]);
        let log = place.kiln(&["build", "--call=check,format=sarif", "context"]).ok().out();
        let log: Value = serde_json::from_str(&log).unwrap();
        assert_eq!(log["version"], "2.1.0");
    });
}
