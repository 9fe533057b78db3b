use proptest::prelude::*;

use super::*;

fn programs(text: &str) -> Vec<String> {
    let outside = Outside { lookup: &|name| (name == "A").then(|| "a".to_owned()), home: Some("/root") };
    let show = |call: Call| {
        let args = call.args.iter().map(|arg| arg.value.clone().unwrap_or_else(|| "?".to_owned()));
        std::iter::once(call.program.clone()).chain(args).collect::<Vec<_>>().join(" ")
    };
    calls(&commands(text), &outside).into_iter().map(show).collect()
}

#[test]
fn programs_of_a_script() {
    let rows: &[(&str, &[&str])] = &[
        ("apt-get update && apt-get install -y x", &["apt-get update", "apt-get install -y x"]),
        ("set -eux; pip install 'a b' \"$A\" $B;", &["set -eux", "pip install a b a ?"]),
        ("sudo -E apt-get install x", &["apt-get install x"]),
        ("A=1 env B=2 python3.11 -m pip install x", &["pip install x"]),
        ("/venv/bin/pip install x", &["pip install x"]),
        ("if a; then pip install x; else npm ci; fi", &["a", "pip install x", "npm ci"]),
        ("for p in a b; do pip install $p; done", &["for p in a b", "pip install ?"]),
        ("case $x in a) pip install a;; b|c) npm ci;; esac", &["pip install a", "npm ci"]),
        ("(cd /x && make) || true", &["cd /x", "make", "true"]),
        ("foo() { npm ci; }; foo", &["foo", "npm ci", "foo"]),
        ("echo 'pip install x' # pip install y", &["echo pip install x"]),
        ("bash -lc 'pip install x && npm ci'", &["pip install x", "npm ci"]),
        ("sh -c \"sh -c 'npm ci'\"", &["npm ci"]),
        ("cat pkgs | xargs -r apt-get install -y", &["cat pkgs", "apt-get install -y"]),
        ("x=$(pip install a) pip install b 2>&1 >/dev/null", &["pip install b"]),
        ("cat <<EOF >f\npip install x\nEOF\nnpm ci", &["cat", "npm ci"]),
        ("pip install \\\n  a \\\n  b", &["pip install a b"]),
        ("rm -rf ~/.cache ~x/y", &["rm -rf /root/.cache ?"]),
        ("timeout 10 npm ci", &["npm ci"]),
        ("corepack yarn install", &["yarn install"]),
        ("corepack enable", &["corepack enable"]),
        ("pip install \"unclosed", &["pip install unclosed"]),
        ("echo ${A} ${A:-b} $(( 1 + 2 ))", &["echo a ? ?"]),
    ];
    for (text, wanted) in rows {
        assert_eq!(programs(text), *wanted, "{text}");
    }
}

#[test]
fn joints_and_ranges() {
    let text = "a x && b || c; (d | e)";
    let list = commands(text);
    let shown: Vec<_> =
        list.iter().map(|command| (&text[command.range.clone()], command.before, command.depth)).collect();
    assert_eq!(
        shown,
        [
            ("a x", Joint::Edge, 0),
            ("b", Joint::And, 0),
            ("c", Joint::Or, 0),
            ("d", Joint::Edge, 1),
            ("e", Joint::Pipe, 1)
        ]
    );
}

#[test]
fn deep_nesting_ends() {
    let text = "$(".repeat(100_000) + &"sh -c ".repeat(1000) + &"(".repeat(100_000);
    commands(&text);
    let nested = (0..6).fold("npm ci".to_owned(), |inner, _| format!("sh -c {inner:?}"));
    assert_eq!(programs(&nested), [] as [String; 0]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(a|\\$|\\(|\\)|\\{|\\}|'|\"|`|\\\\|<|>|<<E|E|-|&|\\||;| |\n|\r|#|~|=|case|esac|if|fi|é|🦀|sh -c |sudo |env |xargs ){0,40}") {
        for command in commands(&text) {
            prop_assert!(text.get(command.range.clone()).is_some());
            for word in &command.words {
                prop_assert!(text.get(word.range.clone()).is_some());
            }
        }
        programs(&text);
    }
}
