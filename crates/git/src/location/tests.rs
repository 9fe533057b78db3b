use super::*;

#[test]
fn remotes_are_taken_apart() {
    let ssh =
        |host: &str, port, path: &str| Reach::Ssh { host: host.to_owned(), port, path: path.to_owned() };
    let cases = [
        ("https://example.com/a.git", Reach::Http("https://example.com/a.git".to_owned())),
        ("https://example.com/a/", Reach::Http("https://example.com/a".to_owned())),
        ("http://127.0.0.1:80/a", Reach::Http("http://127.0.0.1:80/a".to_owned())),
        ("git://h:1/a%20b", Reach::Git { authority: "h:1".to_owned(), path: "/a b".to_owned() }),
        ("ssh://git@h:22/a", ssh("git@h", Some(22), "/a")),
        ("ssh://git@[::1]:22/a", ssh("git@::1", Some(22), "/a")),
        ("ssh://[::1]/~me/a", ssh("::1", None, "~me/a")),
        ("git@h:a/b.git", ssh("git@h", None, "a/b.git")),
        ("file:///srv/a%2fb", Reach::File("/srv/a/b".into())),
    ];
    for (remote, reach) in cases {
        assert_eq!(Location::parse(remote).unwrap().reach, reach, "{remote}");
    }
    for remote in
        ["/srv/a", "../a", "ext::sh -c x", "ftp://h/a", "https://h/a#b", "ssh://h:x/a", "github.com/a/b"]
    {
        let error = Location::parse(remote).unwrap_err();
        assert!(matches!(error, GitError::Unsupported { .. }), "{remote}: {error}");
    }
    let secret = Location::parse("https://me:s3cret@h/a?x").unwrap_err().to_string();
    assert!(!secret.contains("s3cret"), "{secret}");
}

#[test]
fn submodules_start_from_the_repository_above() {
    let cases = [
        ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
        ("https://h/a/b.git/", "../../c.git", "https://h/c.git"),
        ("https://h/a/b.git", "./c.git", "https://h/a/b.git/c.git"),
        ("git@h:a/b.git", "../c.git", "git@h:a/c.git"),
        ("git@h:b.git", "../c.git", "git@h:c.git"),
        ("git@h:b.git", "https://other/c", "https://other/c"),
        ("https://h/a", "../../../c", "error"),
    ];
    for (above, url, expected) in cases {
        let found = Location::parse(above).unwrap().submodule(url);
        let found = found.map_or_else(|_| "error".to_owned(), |location| location.name);
        assert_eq!(found, expected, "{above} {url}");
    }
}
