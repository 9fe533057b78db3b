use super::*;

fn refs(names: &[&str]) -> Vec<Ref> {
    let one = |(number, name): (usize, &&str)| Ref {
        name: (*name).to_owned(),
        id: ObjectId::from_hex(format!("{number:040x}").as_bytes()).unwrap(),
        peeled: None,
        target: None,
    };
    names.iter().enumerate().map(one).collect()
}

#[test]
fn a_name_means_a_ref_then_a_branch_then_a_tag() {
    let all = refs(&[
        "HEAD",
        "refs/tags/v1",
        "refs/heads/v1",
        "refs/tags/v2",
        "refs/pull/1/head",
        "refs/heads/a/b",
    ]);
    let cases = [
        (None, Some("HEAD")),
        (Some("HEAD"), Some("HEAD")),
        (Some("v1"), Some("refs/heads/v1")),
        (Some("tags/v1"), Some("refs/tags/v1")),
        (Some("refs/tags/v1"), Some("refs/tags/v1")),
        (Some("v2"), Some("refs/tags/v2")),
        (Some("pull/1/head"), Some("refs/pull/1/head")),
        (Some("a/b"), Some("refs/heads/a/b")),
        (Some("b"), None),
        (Some("0000000"), None),
    ];
    for (reference, expected) in cases {
        let found = find(&all, reference).map(|found| found.name.as_str());
        assert_eq!(found, expected, "{reference:?}");
    }
}

#[test]
fn near_names_are_told() {
    let few = refs(&["HEAD", "refs/heads/main", "refs/tags/v1.0"]);
    assert_eq!(near(&few, "master"), ["main", "v1.0"]);
    let many: Vec<String> = (0..50).map(|number| format!("refs/tags/v1.{number}")).collect();
    let many = refs(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(near(&many, "refs/tags/v1.99"), ["v1.19", "v1.29", "v1.39"]);
    assert_eq!(near(&many, "development"), [] as [&str; 0]);
    assert_eq!(distance("kitten", "sitting"), 3);
}
