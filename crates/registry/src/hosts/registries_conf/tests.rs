use super::*;

fn parse(text: &str) -> RegistriesConf {
    RegistriesConf::parse(text, "f").unwrap()
}

const EXAMPLE: &str = r#"
unqualified-search-registries = ["one.example", "two.example"]
short-name-mode = "enforcing"

[[registry]]
prefix = "a.example/foo"
location = "inside.example/bar/"

[[registry.mirror]]
location = "m0.example/for-foo"

[[registry.mirror]]
location = "m1.example:5000/foo"
insecure = true
pull-from-mirror = "digest-only"

[[registry]]
location = "a.example"
insecure = true

[[registry]]
location = "a.example/foo/secret"
blocked = true

[[registry]]
prefix = "*.wild.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m2.example"

[[registry]]
prefix = "*.deep.wild.example"
location = "flat.example"

[aliases]
"fedora" = "registry.fedora.example/fedora"
"gone" = ""
"#;

#[test]
fn the_longest_prefix_rules() {
    let conf = parse(EXAMPLE);
    // Repository; line of the rule, where it really is.
    let cases = [
        ("a.example/foo/image", Some((5, "inside.example/bar/image"))),
        ("a.example/foo", Some((5, "inside.example/bar"))),
        ("a.example/foot", Some((17, "a.example/foot"))),
        ("a.example/foo/secret", Some((21, "a.example/foo/secret"))),
        ("a.example/foo/secret/x", Some((21, "a.example/foo/secret/x"))),
        ("a.example/foo/secrets", Some((5, "inside.example/bar/secrets"))),
        ("a.example:5000/foo", None),
        ("b.a.example/foo", None),
        ("x.wild.example/i", Some((25, "/i"))),
        ("y.x.wild.example:5000/i", Some((25, ":5000/i"))),
        ("wild.example/i", None),
        ("x.wild.example.org/i", None),
        ("other.example/x.wild.example/i", None),
        ("x.deep.wild.example/i", Some((31, "flat.example/i"))),
    ];
    for (name, expected) in cases {
        let found = conf.rule(name).map(|(rule, taken)| {
            let line = rule.from.strip_prefix("f:").unwrap().parse().unwrap();
            (line, format!("{}{}", rule.location, &name[taken..]))
        });
        assert_eq!(found, expected.map(|(line, place)| (line, place.to_owned())), "{name}");
    }
}

#[test]
fn mirrors_know_what_they_are_asked_for() {
    let conf = parse(EXAMPLE);
    let mirrors = |name| conf.rule(name).unwrap().0.mirrors.clone();
    let mirror = |location: &str, insecure, pulls, from: &str| Mirror {
        location: location.to_owned(),
        insecure,
        pulls,
        from: from.to_owned(),
    };
    let expected = [
        mirror("m0.example/for-foo", false, Pulls::All, "f:9"),
        mirror("m1.example:5000/foo", true, Pulls::Digests, "f:12"),
    ];
    assert_eq!(mirrors("a.example/foo/i"), expected);
    assert_eq!(mirrors("x.wild.example/i"), [mirror("m2.example", false, Pulls::Digests, "f:28")]);
    assert!(conf.rule("a.example/foo/secret").unwrap().0.blocked);
    assert!(conf.rule("a.example/x").unwrap().0.insecure);
}

#[test]
fn a_later_file_rules_over_an_earlier_one() {
    let mut conf = parse(EXAMPLE);
    let later = r#"
        unqualified-search-registries = ["three.example"]
        [[registry]]
        location = "a.example"
        blocked = true
        [aliases]
        "fedora" = ""
        "new" = "n.example/new""#;
    conf.over(RegistriesConf::parse(later, "later").unwrap());
    let rule = conf.rule("a.example/x").unwrap().0;
    assert!(rule.blocked && !rule.insecure && rule.from == "later:3", "{rule:?}");
    assert_eq!(conf.rule("a.example/foo/x").unwrap().0.from, "f:5");
    let short = |name| conf.short(name).map(|alias| (alias.value, alias.from));
    let alias = |value: &str, from: &str| Some((vec![value.to_owned()], from.to_owned()));
    assert_eq!(short("new"), alias("n.example/new", "later"));
    assert_eq!(short("fedora"), alias("three.example/fedora", "later"));
    assert_eq!(parse(EXAMPLE).short("fedora").unwrap().value, ["registry.fedora.example/fedora"]);
    assert_eq!(parse(EXAMPLE).short("gone").unwrap().value, ["one.example/gone", "two.example/gone"]);
    assert_eq!(parse("").short("x"), None);
    conf.over(parse(""));
    assert_eq!(conf.short("x").unwrap().value, ["three.example/x"]);
}

#[test]
fn the_old_form_is_read() {
    let conf = parse(
        "[registries.search]\nregistries = ['s.example']\n[registries.insecure]\nregistries = ['i.example']\n\
         [registries.block]\nregistries = ['b.example', 'i.example']\n",
    );
    let rule = |name| conf.rule(name).map(|(rule, _)| (rule.insecure, rule.blocked));
    assert_eq!(rule("i.example/x"), Some((true, true)));
    assert_eq!(rule("b.example/x"), Some((false, true)));
    assert_eq!(conf.short("x").unwrap().value, ["s.example/x"]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let cases = [
        ("\n[[registry]]\nblocked = true\n", "line 2: a [[registry]] needs a prefix or a location"),
        ("[[registry]]\nprefix = 'a'\n", "line 1: the [[registry]] with prefix \"a\" needs a location"),
        (
            "[[registry]]\nprefix = 'a.*.b'\nlocation = 'c'\n",
            "line 1: prefix \"a.*.b\": a * stands only for what is before a host, as in *.example.com",
        ),
        (
            "[[registry]]\nprefix = '*.b/c'\n",
            "line 1: prefix \"*.b/c\": a * stands only for what is before a host, as in *.example.com",
        ),
        (
            "[[registry]]\nlocation = 'https://a'\n",
            "line 1: a location has no scheme: insecure = true allows http",
        ),
        (
            "[[registry]]\nlocation = 'a/b:1'\n",
            "line 1: prefix \"a/b:1\" has a tag or digest: kiln knows rules for whole repositories only",
        ),
        (
            "[[registry]]\nlocation = 'a'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'all'\n",
            "line 1: pull-from-mirror and mirror-by-digest-only exclude one another",
        ),
        (
            "[[registry]]\nlocation = 'a'\n[[registry.mirror]]\nlocation = ''\n",
            "line 1: mirror location \"\" is not HOST[:PORT][/PATH]",
        ),
        ("[[registry]]\nlocation = 5\n", "line 2: invalid type: integer `5`, expected a string"),
    ];
    for (text, expected) in cases {
        assert_eq!(RegistriesConf::parse(text, "f").unwrap_err(), expected, "{text}");
    }
    assert!(RegistriesConf::parse("a = [", "f").unwrap_err().starts_with("line 1: "));
}
