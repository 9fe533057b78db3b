//! The table testdata/git-url.txt, and what a table cannot say.

use kiln_core::{GitScheme, GitUrl};

#[test]
fn table() {
    let table = include_str!("../../../testdata/git-url.txt");
    let mut rows = 0;
    for (number, line) in table.lines().enumerate() {
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let (text, expected) =
            line.split_once(" -> ").unwrap_or_else(|| panic!("line {}: {line}", number + 1));
        assert_eq!(described(text.trim()), expected, "line {}: {line}", number + 1);
        rows += 1;
    }
    assert!(rows > 70, "{rows} rows");
}

/// The parsed form in one line: the remote, then what differs from nothing.
fn described(text: &str) -> String {
    let url = match GitUrl::parse(text) {
        None => return "none".to_owned(),
        Some(Err(error)) => return format!("error: {}", error.reason),
        Some(Ok(url)) => url,
    };
    let mut out = url.remote.clone();
    let mut add = |key: &str, value: &str| out.push_str(&format!(" {key}={value}"));
    if let Some(credentials) = &url.credentials {
        add("user", &credentials.user);
        add("password", &credentials.password);
    }
    if let Some(reference) = &url.reference {
        add("ref", reference);
    }
    if !url.subdir.is_empty() {
        add("subdir", &url.subdir);
    }
    if let Some(checksum) = &url.checksum {
        add("checksum", checksum);
    }
    if let Some(keep) = url.keep_git_dir {
        add("keep", &keep.to_string());
    }
    if let Some(submodules) = url.submodules {
        add("submodules", &submodules.to_string());
    }
    if url.looks_like_path {
        add("path", "maybe");
    }
    out
}

#[test]
fn credentials_are_in_no_text() {
    let url = GitUrl::parse("https://mylogin:s3cret@example.com/a.git?tag=v1&subdir=x").unwrap().unwrap();
    assert_eq!(url.to_string(), "https://example.com/a.git#refs/tags/v1:x");
    assert_eq!(url.scheme, GitScheme::Https);
    let op = url.op();
    for text in [format!("{url:?}"), format!("{op:?}"), serde_json::to_string(&op).unwrap()] {
        assert!(!text.contains("s3cret") && !text.contains("mylogin"), "{text}");
    }
    let error = GitUrl::parse("https://mylogin:s3cret@example.com/a.git?depth=1").unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "https://example.com/a.git is no usable git URL: its query \"depth\" is unknown; there are ref, tag, branch, commit, checksum, subdir, keep-git-dir, submodules"
    );
}

#[test]
fn an_operation_has_the_defaults_of_buildkit() {
    let op = |text: &str| GitUrl::parse(text).unwrap().unwrap().op();
    let plain = op("https://example.com/a.git");
    assert_eq!((plain.keep_git_dir, plain.submodules), (false, true));
    let asked = op("https://example.com/a.git?keep-git-dir&submodules=0&checksum=AbC1#main:/a/./b/");
    assert_eq!((asked.keep_git_dir, asked.submodules), (true, false));
    assert_eq!((asked.reference.as_deref(), asked.subdir.as_str()), (Some("main"), "a/b"));
    assert_eq!(asked.checksum.as_deref(), Some("abc1"));
    assert_eq!(asked.remote, "https://example.com/a.git");
}
