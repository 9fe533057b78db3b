//! Fixes of BuildKit's rules: a table of texts before and after, and of texts that stay.

use kiln_checks::{add_fixes, fix_all};
use kiln_dockerfile::{Diagnostic, Severity, check, parse};
use kiln_frontend::{LowerOptions, lower_offline};

fn find(text: &str) -> Vec<Diagnostic> {
    let (file, mut found) = parse(text);
    if found.iter().any(|one| one.severity == Severity::Error) {
        return Vec::new();
    }
    found.extend(check::of_instructions(&file).into_iter().chain(check::of_whole(&file)));
    found.extend(
        lower_offline(&file, &LowerOptions::default()).map_or_else(|all| all, |plan| plan.diagnostics),
    );
    add_fixes(text, &file, &mut found);
    found
}

#[test]
fn texts_before_and_after() {
    let rows = [
        ("FROM scratch\nrun a\nRUN b\n", "FROM scratch\nRUN a\nRUN b\n"),
        ("from scratch\nrun a\nRuN b\n", "from scratch\nrun a\nrun b\n"),
        ("FROM scratch as x\r\n", "FROM scratch AS x\r\n"),
        ("FROM scratch AS MyStage\n", "FROM scratch AS mystage\n"),
        (
            "FROM scratch\nMAINTAINER me <me@x.org>  \n",
            "FROM scratch\nLABEL org.opencontainers.image.authors=\"me <me@x.org>\"  \n",
        ),
        ("FROM scratch\nENV a b\n", "FROM scratch\nENV a=b\n"),
        (
            "FROM scratch\nENV a   b c $d \nLABEL x \"y z\"\n",
            "FROM scratch\nENV a=\"b c $d\" \nLABEL x=\"y z\"\n",
        ),
        ("FROM alpine\nCMD npm run start\n", "FROM alpine\nCMD [\"npm\", \"run\", \"start\"]\n"),
        (
            "FROM alpine\nRUN a \\\n\n  b \\\n   \n\n  c\nRUN d\n",
            "FROM alpine\nRUN a \\\n  b \\\n  c\nRUN d\n",
        ),
        ("FROM --platform=$TARGETPLATFORM  alpine\n", "FROM alpine\n"),
    ];
    for (before, after) in rows {
        let (got, applied) = fix_all(before, find);
        assert_eq!(got, after, "{:#?}", find(before));
        assert!(!applied.is_empty());
        assert!(find(&got).iter().all(|one| one.fix.is_none()), "{got}");
    }
}

#[test]
fn texts_that_stay() {
    let rows = [
        "FROM alpine\nCMD echo $HOME\n",
        "FROM alpine\nCMD a && b\n",
        "FROM alpine\nCMD A=1 b\n",
        "FROM alpine\nCMD exec a\n",
        "FROM alpine\nENTRYPOINT a b\n",
        "FROM alpine\nENTRYPOINT [\"a\"]\nCMD b c\n",
        "FROM alpine\nENV a b\\ c\n",
        "FROM alpine\nENV a \"b\" \"c\"\n",
        "FROM alpine\nMAINTAINER \"me\"\n",
        "FROM alpine\nWORKDIR app\n",
    ];
    for text in rows {
        assert!(!find(text).is_empty(), "{text}");
        assert_eq!(fix_all(text, find).0, text);
    }
}

/// A legacy value and its new form are the same variable.
#[test]
fn legacy_values_stay_the_same() {
    for value in ["b", "b c", "\"b c\"", "$x y", "a=b", "a#b", "b  c"] {
        let text = format!("FROM scratch\nENV x 1\nENV a {value}\n");
        let env = |text: &str| {
            lower_offline(&parse(text).0, &LowerOptions::default()).unwrap().images[0]
                .config
                .config
                .env
                .clone()
        };
        let (after, applied) = fix_all(&text, find);
        assert_eq!(applied.len(), 2, "{after}");
        assert_eq!(env(&text), env(&after), "{after}");
    }
}
