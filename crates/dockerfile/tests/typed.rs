//! What parse() makes of a text: types, places, and errors in the user's words.

use kiln_dockerfile::{Command, Diagnostic, Instruction, Position, Severity, Span, parse};
use proptest::prelude::*;

/// `line:column message (help)` of each diagnostic, and the text it points at.
fn told(text: &str) -> Vec<(String, String)> {
    let describe = |diagnostic: Diagnostic| {
        let Span { start, end } = diagnostic.span;
        let Position { line, column } = Position::of(text, start);
        let help = diagnostic.help.map(|help| format!(" ({help})")).unwrap_or_default();
        let kind = if diagnostic.severity == Severity::Error { "" } else { "warning: " };
        (format!("{line}:{column} {kind}{}{help}", diagnostic.message), text[start..end].to_owned())
    };
    parse(text).1.into_iter().map(describe).collect()
}

#[test]
fn errors_are_in_the_users_words_and_point_at_the_place() {
    let cases = [
        ("FORM a", "1:1 unknown instruction: FORM (did you mean `FROM`?)", "FORM"),
        ("FROM a\nCPOY a b", "2:1 unknown instruction: CPOY (did you mean `COPY`?)", "CPOY"),
        ("FROM a\nXYZZY a b", "2:1 unknown instruction: XYZZY", "XYZZY"),
        ("RUN a\nFROM a", "1:1 RUN must come after a FROM", "RUN"),
        ("ARG a", "1:6 the file has no FROM (begin with `FROM image` or `FROM scratch`)", ""),
        ("FROM", "1:1 FROM needs an image, an earlier stage or `scratch`", "FROM"),
        (
            "FROM a b",
            "1:8 FROM takes one image, and AS and a name if the stage has one (write `FROM image` or `FROM image AS name`)",
            "b",
        ),
        (
            "FROM a as 1x",
            "1:11 `1x` cannot be a stage's name (it begins with a letter and has letters, digits, `-`, `_` and `.`)",
            "1x",
        ),
        (
            "FROM --plattform=x a",
            "1:6 FROM has no flag --plattform (did you mean `--platform`?)",
            "--plattform=x",
        ),
        ("FROM a\nENV --x a=b", "2:5 ENV has no flag --x (ENV takes no flags)", "--x"),
        ("FROM a\nARG", "2:1 ARG needs a name", "ARG"),
        ("FROM a\nARG a=1 =2", "2:9 an ARG needs a name before the `=`", "=2"),
        ("FROM a\nENV =x", "2:5 ENV needs a name before the `=`", "="),
        ("FROM a\nENV", "2:1 ENV needs name=value", "ENV"),
        ("FROM a\nLABEL x", "2:7 LABEL needs a name and a value (write `LABEL x=value`)", "x"),
        (
            "FROM a\nENV a=1 b",
            "2:9 `b` must have the form name=value (put quotes around a value with blanks in it)",
            "b",
        ),
        ("FROM a\nRUN", "2:1 RUN needs a command (write the command on the same line, or a heredoc)", "RUN"),
        ("FROM a\nRUN []", "2:1 RUN needs a command", "RUN []"),
        ("FROM a\nCMD", "2:1 CMD needs a command (`CMD []` clears an inherited one)", "CMD"),
        ("FROM a\nCOPY", "2:1 COPY needs a source and a destination", "COPY"),
        (
            "FROM a\nCOPY x",
            "2:6 COPY needs a source and a destination, here is only one (write `COPY x DESTINATION`)",
            "x",
        ),
        ("FROM a\nCOPY --form=b x y", "2:6 COPY has no flag --form (did you mean `--from`?)", "--form=b"),
        ("FROM a\nCOPY --from x y", "2:6 --from needs a value: --from=...", "--from"),
        ("FROM a\nCOPY --from=a --from=b x y", "2:15 --from is given twice", "--from=b"),
        ("FROM a\nCOPY --link=maybe x y", "2:6 --link is true or false, not `maybe`", "--link=maybe"),
        (
            "FROM a\nCOPY --from=$X x y",
            "2:13 variables do not work in --from (give the image a name with FROM ... AS, where variables work, and use that)",
            "$X",
        ),
        ("FROM a\nCOPY x <<E\ny\nE", "2:8 a heredoc cannot be the destination of COPY", "<<E"),
        (
            "FROM a\nRUN <<E\ny\n",
            "2:5 the heredoc `E` is not terminated (end it with a line that holds `E` and nothing else)",
            "<<E",
        ),
        ("FROM a\nSHELL x", "2:7 SHELL takes a JSON array (write `SHELL [\"/bin/sh\", \"-c\"]`)", "x"),
        ("FROM a\nCMD [1]", "2:5 the JSON form takes an array of strings and nothing else", "[1]"),
        ("FROM a\nVOLUME [\" \"]", "2:9 a VOLUME cannot be empty", "\" \""),
        ("FROM a\nEXPOSE", "2:1 EXPOSE needs a port, such as 8080/tcp", "EXPOSE"),
        ("FROM a\nWORKDIR", "2:1 WORKDIR needs a directory", "WORKDIR"),
        ("FROM a\nHEALTHCHECK", "2:1 HEALTHCHECK needs CMD and a command, or NONE", "HEALTHCHECK"),
        ("FROM a\nHEALTHCHECK curl", "2:13 HEALTHCHECK takes CMD or NONE, not `curl`", "curl"),
        ("FROM a\nHEALTHCHECK CMD", "2:1 HEALTHCHECK CMD needs a command", "HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK NONE x", "2:18 HEALTHCHECK NONE takes nothing more", "x"),
        (
            "FROM a\nHEALTHCHECK --retries=1 NONE",
            "2:13 warning: --retries has no effect on HEALTHCHECK NONE",
            "--retries=1",
        ),
        ("FROM a\nONBUILD", "2:1 ONBUILD needs an instruction", "ONBUILD"),
        (
            "FROM a\nONBUILD FROM b",
            "2:9 FROM is not allowed under ONBUILD (a trigger runs in a stage that has its base already)",
            "FROM",
        ),
        (
            "FROM a\nONBUILD ONBUILD RUN x",
            "2:9 ONBUILD is not allowed under ONBUILD (a trigger runs in the next image and leaves none behind)",
            "ONBUILD",
        ),
        ("FROM a\nONBUILD RNU x", "2:9 unknown instruction: RNU (did you mean `RUN`?)", "RNU"),
        (
            "FROM a\nRUN --mount=type=cache,traget=/x true",
            "2:5 --mount has no key `traget` (in `traget=/x`) (did you mean `target`?)",
            "--mount=type=cache,traget=/x",
        ),
        ("FROM a\nRUN --mount= true", "2:5 --mount needs a value: --mount=type=cache,target=...", "--mount="),
        (
            "FROM a\nRUN --mount=target true",
            "2:5 the key `target` of --mount needs a value: target=...",
            "--mount=target",
        ),
        (
            "FROM a\nRUN --mount=from=$x,target=/ true",
            "2:5 variables do not work in from=$x (give the image a name with FROM ... AS, where variables work, and use that)",
            "--mount=from=$x,target=/",
        ),
        (
            "FROM a\nRUN --mount=id=a\\\"b true",
            "2:5 --mount: a bare quote in `id=a\"b`; put the whole field in quotes",
            "--mount=id=a\\\"b",
        ),
        ("# escape=|\nFROM a", "1:10 the escape character can be `\\` or a backtick, not `|`", "|"),
        ("# check=a\n# check=b\nFROM a", "2:1 the directive `check` may be given only once", "# check=b"),
        ("", "1:1 the file has no instructions", ""),
        (
            "FROM a\nRUN x \\\n\n  y",
            "3:1 warning: empty line in a continued instruction (remove it, or make it a comment)",
            "\n  y",
        ),
    ];
    for (text, message, place) in cases {
        assert_eq!(told(text), [(message.to_owned(), place.to_owned())], "{text:?}");
    }
}

#[test]
fn all_errors_are_told_at_once_in_order() {
    let text = "FORM x\nRUN a\nFROM b\nCOPY --x --y a\nENV a\n";
    let told: Vec<String> = told(text).into_iter().map(|(message, _)| message).collect();
    let lines: Vec<&str> = told.iter().map(|message| message.split(' ').next().unwrap()).collect();
    assert_eq!(lines, ["1:1", "2:1", "4:6", "4:10", "4:14", "5:5"], "{told:#?}");
}

#[test]
fn everything_stands_where_its_span_says() {
    let text = "\u{feff}# syntax=docker/dockerfile:1\nARG V=1 W\n\n# base the first stage\n# more\nfrom --platform=$P \\\n  im:$V as Base\nCOPY --chown=1:2 \\\n  a <<x \\\n  # comment\n  /d\nbody\nx\nENV k=\"v w\" l=\\\nm\n";
    let (file, diagnostics) = parse(text);
    assert_eq!(diagnostics, []);
    let at = |span: Span| &text[span.start..span.end];
    assert_eq!(at(file.directives.syntax.unwrap().span), "docker/dockerfile:1");
    let [args] = &file.global_args[..] else { panic!("{:?}", file.global_args) };
    assert_eq!(at(args.value[0].name.span), "V");
    assert_eq!(at(args.value[0].default.as_ref().unwrap().span), "1");
    assert_eq!(at(args.value[1].name.span), "W");
    assert_eq!(args.lines, (2, 2));

    let [stage] = &file.stages[..] else { panic!("{:?}", file.stages) };
    let from = &stage.from;
    assert_eq!(at(from.span), "from --platform=$P \\\n  im:$V as Base");
    assert_eq!(from.text, "from --platform=$P   im:$V as Base");
    assert_eq!(from.lines, (6, 7));
    assert_eq!(at(from.value.image.span), "im:$V");
    assert_eq!(at(from.value.platform.as_ref().unwrap().span), "$P");
    let name = from.value.name.as_ref().unwrap();
    assert_eq!((name.value.as_str(), at(name.span)), ("base", "Base"));
    let comments: Vec<&str> = from.comments.iter().map(|comment| at(comment.span)).collect();
    assert_eq!(comments, ["base the first stage", "more"]);

    let [copy, env] = &stage.instructions[..] else { panic!("{:?}", stage.instructions) };
    assert_eq!(copy.lines, (8, 13));
    assert!(at(copy.span).starts_with("COPY") && at(copy.span).ends_with("body\nx"));
    let Instruction::Copy(copy) = &copy.value else { panic!() };
    assert_eq!(copy.sources.iter().map(|source| at(source.span)).collect::<Vec<_>>(), ["a"]);
    assert_eq!(at(copy.dest.span), "/d");
    assert_eq!(at(copy.chown.as_ref().unwrap().span), "1:2");
    assert_eq!((copy.heredocs[0].name.as_str(), at(copy.heredocs[0].span)), ("x", "body\n"));
    let Instruction::Env(pairs) = &env.value else { panic!() };
    assert_eq!((at(pairs[0].name.span), at(pairs[0].value.span)), ("k", "\"v w\""));
    assert_eq!((pairs[1].value.value.as_str(), at(pairs[1].value.span)), ("m", "m"));
}

#[test]
fn run_is_typed() {
    let text = "FROM a\nRUN --mount=TYPE=cache,target=/x,ro --mount=\\\"target=/a,b\\\",\\\"id=q\\\"\\\"q\\\" --network=none --device=gpu make  all\nRUN <<-E\n\t\ta\n\tE\nRUN [\"a\", \"\\u0062\"]\n";
    let (file, diagnostics) = parse(text);
    assert_eq!(diagnostics, []);
    let runs: Vec<_> = file.stages[0]
        .instructions
        .iter()
        .map(|instruction| match &instruction.value {
            Instruction::Run(run) => run,
            other => panic!("{other:?}"),
        })
        .collect();
    let field = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    let ro = ("ro".to_owned(), None);
    assert_eq!(runs[0].mounts[0].fields, [field("type", "cache"), field("target", "/x"), ro]);
    assert_eq!(runs[0].mounts[1].fields, [field("target", "/a,b"), field("id", "q\"q")]);
    assert_eq!(runs[0].network.as_ref().unwrap().value, "none");
    assert_eq!(runs[0].flags[0].name, "device");
    assert_eq!(runs[0].command, Command::Shell("make  all".to_owned()));
    assert_eq!(runs[1].command, Command::Shell("<<-E".to_owned()));
    assert_eq!((runs[1].heredocs[0].content.as_str(), runs[1].heredocs[0].chomp), ("a\n", true));
    assert_eq!(runs[2].command, Command::Exec(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn heredoc_words_are_no_sources() {
    let text = "FROM a\nCOPY x << \"one two\" y <<-z /d\n1\none two\n2\nz\nONBUILD ADD <<o /d\n3\no\nCOPY [\"<<E\", \"/d\"]\n";
    let (file, diagnostics) = parse(text);
    assert_eq!(diagnostics, []);
    let copies: Vec<_> = file.stages[0]
        .instructions
        .iter()
        .map(|instruction| match &instruction.value {
            Instruction::Copy(copy) => copy,
            Instruction::Onbuild(trigger) => match &trigger.instruction {
                Instruction::Add(copy) => copy,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    let sources = |index: usize| -> Vec<&str> {
        copies[index].sources.iter().map(|source| source.value.as_str()).collect()
    };
    let bodies = |index: usize| -> Vec<(&str, &str)> {
        let heredocs = copies[index].heredocs.iter();
        heredocs.map(|heredoc| (heredoc.name.as_str(), heredoc.content.as_str())).collect()
    };
    assert_eq!((sources(0), bodies(0)), (vec!["x", "y"], vec![("one two", "1\n"), ("z", "2\n")]));
    assert_eq!((sources(1), bodies(1)), (vec![], vec![("o", "3\n")]));
    assert_eq!((sources(2), bodies(2)), (vec!["<<E"], vec![]));
}

#[test]
fn empty_flags_are_as_good_as_none() {
    let (file, diagnostics) = parse("FROM --platform= a\nCOPY --from= --chown= x y\n");
    assert_eq!(diagnostics, []);
    assert_eq!(file.stages[0].from.value.platform, None);
    let Instruction::Copy(copy) = &file.stages[0].instructions[0].value else { panic!() };
    assert_eq!((&copy.from, &copy.chown), (&None, &None));
}

#[test]
fn syntax_is_found_in_other_languages_too() {
    let cases = [
        ("// syntax=a/b:1\nanything", Some("a/b:1")),
        ("#!/bin/x\n# syntax = a:1 \nFROM b", Some("a:1")),
        ("{\"syntax\": \"a:2\"}", Some("a:2")),
        ("{\"syntax\": 2}", None),
        ("// x\n// syntax=a\n", None),
        ("FROM a\n# syntax=b\n", None),
    ];
    for (text, syntax) in cases {
        let found = parse(text).0.directives.syntax.map(|syntax| syntax.value);
        assert_eq!(found.as_deref(), syntax, "{text:?}");
    }
}

#[test]
fn lines_have_any_length() {
    let long = "x".repeat(1 << 20);
    let text = format!("FROM a\nRUN {long}\nRUN a{}\n", " \\\n b".repeat(20_000));
    let (file, diagnostics) = parse(&text);
    assert_eq!(diagnostics, []);
    assert_eq!(file.stages[0].instructions[0].text.len(), 4 + (1 << 20));
    assert_eq!(file.stages[0].instructions[1].lines, (3, 20_003));
}

#[test]
fn onbuild_cannot_exhaust_the_stack() {
    let text = format!("FROM a\n{} RUN x\n", "ONBUILD ".repeat(100_000));
    let (_, diagnostics) = parse(&text);
    assert_eq!(diagnostics[0].message, "ONBUILD nests too deep");
}

fn dockerfile_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[A-Z]{3,7} ",
        "(FROM|RUN|COPY|ADD|ENV|ARG|LABEL|CMD|ONBUILD|HEALTHCHECK|EXPOSE|VOLUME|SHELL|USER) ",
        "# ?(escape|syntax|check)=[`\\\\a]?",
        "<<-?['\"]?E['\"]?( |\n)",
        "--[a-z]{2,5}=?[\"'a,=$ ]{0,4} ",
        "\\[(\"[a\\\\u0e]{0,4}\",? ?){0,3}\\]?",
        "[\\\\`]?\r?\n",
        "E\n",
        "[ -~é\u{a0}\t\u{feff}]{0,6}",
        "[a-z]+=[a-z\"'$ ]* ",
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn parse_never_panics_and_spans_are_text(text in dockerfile_like()) {
        let (file, diagnostics) = parse(&text);
        for diagnostic in &diagnostics {
            prop_assert!(text.get(diagnostic.span.start..diagnostic.span.end).is_some(), "{diagnostic:?}");
        }
        for stage in &file.stages {
            for instruction in &stage.instructions {
                prop_assert!(text.get(instruction.span.start..instruction.span.end).is_some());
                prop_assert!(instruction.lines.0 <= instruction.lines.1);
            }
        }
        let errors = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        prop_assert!(errors || !file.stages.is_empty());
        if let Ok(nodes) = kiln_dockerfile::parse_nodes(&text) {
            prop_assert_eq!(kiln_dockerfile::print::json_lines(&nodes).lines().count(), nodes.len());
        }
    }

    #[test]
    fn anything_may_be_parsed(text in any::<String>()) {
        let _ = parse(&text);
    }
}
