use kiln_core::{Advice, PathChange, PathPart};

use super::*;

/// Knows one argument, and no files.
struct Nothing;

impl Ask for Nothing {
    fn is_argument(&self, name: &str) -> bool {
        name == "VERSION"
    }

    fn is_first(&self, line: usize, _name: &str) -> bool {
        line == 1
    }

    fn files(&self, _now: &Digest, _was: &Digest) -> Option<FilesChange> {
        None
    }
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn env(text: &str) -> Env {
    let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn part(name: &str, value: &str) -> KeyPart {
    KeyPart { name: name.to_owned(), value: value.to_owned() }
}

/// An image, and above it steps that each stand on the one before: the command, its environment.
fn build(image: &str, steps: &[(&str, &str)]) -> Lines {
    let mut lines = Lines::default();
    let base =
        Line { kind: "image".to_owned(), title: "[1/9] FROM base@sha256:x".to_owned(), ..Line::default() };
    lines.fixed.push(base);
    lines.found.push(Found { key: Some(digest(image)), contents: vec![], ended: true });
    for (number, (command, variables)) in steps.iter().enumerate() {
        let below = lines.found[number].key.map_or(String::new(), |key| key.hex());
        lines.fixed.push(Line {
            kind: "run".to_owned(),
            text: (*command).to_owned(),
            title: format!("[{}/9] RUN {command}", number + 2),
            root: Some(number),
            parts: vec![part("op", "run"), part("arg 1", "sh"), part("arg 2", "-c"), part("arg 3", command)],
            env: env(variables),
            ..Line::default()
        });
        let key = digest(&format!("{below} {command} {variables}"));
        lines.found.push(Found { key: Some(key), contents: vec![], ended: true });
    }
    lines
}

fn compared(now: &Lines, was: &Lines, at: usize) -> Vec<String> {
    let pairs: Vec<Option<usize>> = (0..now.fixed.len()).map(Some).collect();
    let changes = changes(&Run::of(now, at), &Run::of(was, at), &pairs, &Nothing);
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn an_argument_is_named_where_it_is_first_used() {
    let was = build("a", &[("one", "PATH=x VERSION=1"), ("two", "PATH=x VERSION=1")]);
    let now = build("a", &[("one", "PATH=x VERSION=2"), ("two", "PATH=x VERSION=2")]);
    assert_eq!(compared(&now, &was, 1), ["ARG VERSION 1 -> 2 (first used here)"]);
    assert_eq!(compared(&now, &was, 2), ["step below is another: [2/9] RUN one"]);
    // What is added between them is named there.
    let now = build("a", &[("one", "PATH=x VERSION=2"), ("two", "PATH=x VERSION=2 MORE=1")]);
    assert_eq!(compared(&now, &was, 2), ["ENV MORE (not set) -> 1", "step below is another: [2/9] RUN one"]);
    // Below an unchanged step it is the only reason.
    let now = build("a", &[("one", "PATH=x VERSION=1"), ("two", "PATH=x VERSION=2")]);
    assert_eq!(compared(&now, &was, 2), ["ARG VERSION 1 -> 2"]);
}

#[test]
fn each_part_has_words() {
    let was = build("a", &[("one", "A=1 B=2")]);
    let rows = [
        (build("b", &[("one", "A=1 B=2")]), {
            let short = |text: &str| digest(text).to_string()[..19].to_owned();
            format!("base image base moved {} -> {}", short("a"), short("b"))
        }),
        (build("a", &[("other", "A=1 B=2")]), "command one -> other".to_owned()),
        (build("a", &[("one", "B=2 A=1")]), "variables are set in another order".to_owned()),
        (build("a", &[("one", "A=1")]), "ENV B 2 -> (not set)".to_owned()),
    ];
    for (now, words) in rows {
        assert_eq!(compared(&now, &was, 1), [words]);
    }
    let mut now = was.clone();
    for (name, value, words) in [
        ("cwd", "/b", "directory (not set) -> /b"),
        ("user", "me", "user (not set) -> me"),
        ("mount 1", "cache on /c", "mount 1 (not set) -> cache on /c"),
        ("arg 4", "x", "command sh -c one -> sh -c one x"),
    ] {
        now.fixed[1].parts.push(part(name, value));
        assert_eq!(compared(&now, &was, 1), [words]);
        now.fixed[1].parts.pop();
    }
    now.fixed[1].root = None;
    now.found[0].key = None;
    assert_eq!(compared(&now, &was, 1), ["base image base -> scratch"]);
}

#[test]
fn files_without_a_list_are_said_to_differ() {
    let source = super::super::line::LineSource { shown: "src".to_owned(), of: None };
    let copy = |content: Option<&str>| {
        let mut lines = build("a", &[("copy", "")]);
        lines.fixed[1].sources = vec![source.clone()];
        lines.found[1].contents = vec![content.map(digest)];
        lines
    };
    assert_eq!(compared(&copy(Some("x")), &copy(Some("y")), 1), ["src: the files differ"]);
    assert_eq!(compared(&copy(Some("x")), &copy(None), 1), ["src: the files differ"], "it is all there is");
    assert_eq!(compared(&copy(Some("x")), &copy(Some("x")), 1), [""; 0]);
    let mut other = copy(Some("x"));
    other.fixed[1].sources[0].shown = "lib".to_owned();
    assert_eq!(compared(&other, &copy(Some("y")), 1), ["source src -> lib"]);
}

/// Lists of parts, environments and inputs that differ have a reason, and equal ones none: each combination of a few values of
/// each.
#[test]
fn what_differs_has_a_reason_and_what_does_not_has_none() {
    let mut all = Vec::new();
    for number in 0..3_usize.pow(6) {
        let pick = |place: u32| number / 3_usize.pow(place) % 3;
        let mut lines = build(["a", "b", "c"][pick(0)], &[("", "")]);
        let line = &mut lines.fixed[1];
        line.parts = vec![part("op", "run")];
        line.parts.extend(["", "x", "y"].iter().take(pick(1)).map(|arg| part("arg 1", arg)));
        line.parts.extend(["/a", "/b"].iter().take(pick(2)).map(|dir| part(&format!("cwd{dir}"), dir)));
        line.env = env(["A=1 B=1", "B=1 A=1", "A=1"][pick(3)]);
        let count = pick(4);
        let source = super::super::line::LineSource { shown: "f".to_owned(), of: None };
        line.sources = vec![source; count];
        line.parts.extend((0..count).map(|number| part(&format!("from {number}"), "files")));
        lines.found[1].contents = vec![Some(digest(["x", "y", "z"][pick(5)])); count];
        all.push(lines);
    }
    let mut reasons = 0;
    for (number, now) in all.iter().enumerate().step_by(7) {
        for was in all.iter().step_by(11).chain([now]) {
            let same = now.fixed[1].parts == was.fixed[1].parts
                && now.fixed[1].env == was.fixed[1].env
                && now.found[0].key == was.found[0].key
                && now.found[1].contents == was.found[1].contents;
            let found = compared(now, was, 1);
            assert_eq!(found.is_empty(), same, "{number}: {found:?}");
            reasons += found.len();
        }
    }
    assert!(reasons > 1000, "{reasons}");
}

#[test]
fn lines_are_read_as_they_were_written() {
    let mut lines = build("a", &[("one", "A=1 B=2"), ("two", "A=1 X=3 B=2"), ("three", ""), ("four", "Z=1")]);
    // Many variables, of which a step more changes few.
    let many: String = (0..100).map(|number| format!("V{number}={number} ")).collect();
    for number in 0..50 {
        lines.fixed.push(Line {
            kind: "run".to_owned(),
            env: env(&format!("{many}LAST={number}")),
            ..Line::default()
        });
        lines.found.push(Found::default());
    }
    let bytes = lines.to_bytes();
    assert_eq!(Lines::from_bytes(&bytes), Some(lines.clone()));
    assert!(bytes.len() < 20_000, "{}: the environment is not written again for each step", bytes.len());
    for damage in [&bytes[..bytes.len() / 2], b"", b"{}", b"{\"version\":2,\"lines\":[]}"] {
        assert_eq!(Lines::from_bytes(damage), None);
    }
    lines.fixed[1].root = Some(1);
    assert_eq!(Lines::from_bytes(&lines.to_bytes()), None, "no step stands on itself");
}

#[test]
fn permission_bits_alone_get_their_advice() {
    let files = |modes_only, of: Option<&str>, path: &str| KeyChange::Files {
        source: ".".to_owned(),
        of: of.map(str::to_owned),
        paths: vec![PathChange { path: path.to_owned(), what: vec![PathPart::Content] }],
        count: 1,
        modes_only,
    };
    let advice = |changes: &[KeyChange]| {
        super::super::advice::advice(changes, &kiln_core::StepInfo::default(), &Default::default())
    };
    assert_eq!(advice(&[files(true, None, "a")]), [Advice::ContextModes]);
    assert_eq!(advice(&[files(false, None, "a")]), []);
    assert_eq!(advice(&[files(true, Some("stage a"), "a")]), []);
    assert_eq!(advice(&[files(true, None, "a"), KeyChange::VariableOrder]), []);
    let ignored = Advice::Ignore { patterns: vec![".git".to_owned()] };
    assert_eq!(advice(&[files(false, None, ".git/index")]), [ignored]);
    assert_eq!(advice(&[files(false, None, ".git/index"), files(false, None, "a")]), []);
}
