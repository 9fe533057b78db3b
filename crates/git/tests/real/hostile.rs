//! What nobody honest sends.

use kiln_git::{GitError, resolve};
use kiln_testkit::git::{TestRepository, Trouble};

use super::support::{Place, listing};

/// Makes a branch of a tree written by hand.
fn publish(repository: &TestRepository, tree: &str) -> String {
    let commit = repository.object(
        "commit",
        format!("tree {tree}\nauthor K <k@x> 1700000000 +0000\ncommitter K <k@x> 1700000000 +0000\n\nx\n")
            .as_bytes(),
    );
    repository.git(&["update-ref", "refs/heads/main", &commit]);
    commit
}

#[test]
fn names_that_lead_out_are_refused() {
    let place = Place::new();
    let repository = place.repository("a");
    let blob = repository.object("blob", b"evil");
    let inner = repository.tree(&[("100644", b"x", &blob)]);
    let names: [(&str, &[u8], &str); 14] = [
        ("100644", b"..", "relative"),
        ("100644", b".", "relative"),
        ("40000", b"..", "relative"),
        ("100644", b"a/b", "separators"),
        ("100644", b"/etc/passwd", "separators"),
        ("100644", b"../x", "separators"),
        ("40000", b".git", "the .git name"),
        ("40000", b".GIT", "the .git name"),
        ("40000", b".Git", "the .git name"),
        ("40000", b"git~1", "the .git name"),
        ("40000", ".g\u{200c}it".as_bytes(), "the .git name"),
        ("100644", b".git ", "the .git name"),
        ("120000", b".gitmodules", "must not be a symlink"),
        ("100644", b"", ""),
    ];
    for (mode, name, reason) in names {
        let id = if mode == "40000" { &inner } else { &blob };
        let tree = repository.tree(&[(mode, name, id)]);
        publish(&repository, &tree);
        for remote in [place.server.url("a"), place.file_url("a")] {
            let error = place.checkout(&remote, None, &place.options()).unwrap_err();
            let text = error.to_string();
            // Where even the server's git cannot stand it, there is nothing to refuse.
            let refused = matches!(error, GitError::Path { .. } | GitError::Pack { .. });
            assert!(refused || name.is_empty(), "{name:?}: {text}");
            assert!(text.contains(reason), "{name:?}: {text}");
        }
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    let place = Place::new();
    let outside = place.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let repository = place.repository("a");
    let to = repository.object("blob", outside.to_str().unwrap().as_bytes());
    let blob = repository.object("blob", b"evil");
    let inner = repository.tree(&[("100644", b"x", &blob)]);
    let empty = repository.tree(&[]);
    let trees = [
        repository.tree(&[("120000", b"a", &to), ("40000", b"a", &inner)]),
        repository.tree(&[("120000", b"a", &to), ("100644", b"a", &blob)]),
        repository.tree(&[("120000", b"a", &to), ("160000", b"a", &blob)]),
        repository.tree(&[("100644", b"a", &blob), ("100644", b"a", &blob)]),
        repository.tree(&[("40000", b"a", &inner), ("40000", b"a", &empty)]),
    ];
    for tree in trees {
        publish(&repository, &tree);
        let error = place.checkout(&place.server.url("a"), None, &place.options()).unwrap_err();
        assert!(error.to_string().ends_with("it is there twice"), "{error}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
    // A link alone is a link, wherever it leads; an empty one is none.
    publish(&repository, &repository.tree(&[("120000", b"a", &to)]));
    let target = place.checkout(&place.server.url("a"), None, &place.options()).unwrap();
    assert!(listing(&target)[0].starts_with(&format!("a -> {}", outside.display())));
    let nul = repository.object("blob", b"a\0b");
    let nothing = repository.object("blob", b"");
    for to in [&nul, &nothing] {
        publish(&repository, &repository.tree(&[("120000", b"a", to)]));
        let error = place.checkout(&place.server.url("a"), None, &place.options()).unwrap_err();
        assert!(error.to_string().ends_with("a link that leads to what is no path"), "{error}");
    }
}

#[test]
fn objects_of_the_wrong_kind() {
    let place = Place::new();
    let repository = place.repository("a");
    let blob = repository.object("blob", b"x");
    let tree = repository.tree(&[("100644", b"x", &blob)]);
    for entry in [("40000", b"d".as_slice(), &blob), ("100644", b"f", &tree), ("120000", b"l", &tree)] {
        publish(&repository, &repository.tree(&[(entry.0, entry.1, entry.2)]));
        let error = place.checkout(&place.file_url("a"), None, &place.options()).unwrap_err();
        assert!(matches!(&error, GitError::Pack { reason, .. } if reason.contains("should be a")), "{error}");
    }
    // What is asked for as a commit must lead to one.
    let wanted = resolve(&place.access, &place.file_url("a"), Some(&blob)).unwrap();
    for remote in [place.server.url("a"), place.file_url("a")] {
        let error = place.checkout_resolved(&remote, &wanted, &place.options()).unwrap_err();
        assert!(
            matches!(error, GitError::Pack { .. } | GitError::Refused { .. } | GitError::NoSuchCommit { .. }),
            "{error}"
        );
    }
}

#[test]
fn damage_on_the_way_is_seen_wherever_it_is() {
    let place = Place::new();
    let repository = place.repository("a");
    for number in 0..20 {
        repository.file(&format!("f{number}"), format!("{number} ").repeat(number * 50));
    }
    repository.commit("x");
    let remote = place.server.url("a");
    let wanted = resolve(&place.access, &remote, None).unwrap();
    let whole = place.checkout_resolved(&remote, &wanted, &place.options()).unwrap();
    assert_eq!(listing(&whole).len(), 20);
    for distance in [5, 20, 30, 60, 100, 300, 700] {
        let server = kiln_testkit::git::GitServer::start(&place.directory.path().join("repositories"));
        server.trouble(Trouble::Corrupt(distance));
        let error = place.checkout_resolved(&server.url("a"), &wanted, &place.options()).unwrap_err();
        assert!(matches!(error, GitError::Pack { .. } | GitError::Protocol { .. }), "{distance}: {error}");
    }
    for length in [0, 3, 20, 60, 100, 500, 900] {
        let server = kiln_testkit::git::GitServer::start(&place.directory.path().join("repositories"));
        server.trouble(Trouble::Cut(length));
        let error = place.checkout_resolved(&server.url("a"), &wanted, &place.options()).unwrap_err();
        assert!(matches!(error, GitError::Unreachable { .. }), "{length}: {error}");
    }
}

#[test]
fn too_much_of_anything_is_refused() {
    let place = Place::new();
    let repository = place.repository("a");
    // Each level holds the one below ten times: 10^9 files in ten objects.
    let blob = repository.object("blob", b"x");
    let mut id = blob.clone();
    for level in 0..9 {
        let mode = if level == 0 { "100644" } else { "40000" };
        let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
        let entries: Vec<(&str, &[u8], &str)> =
            names.iter().map(|name| (mode, name.as_bytes(), id.as_str())).collect();
        id = repository.tree(&entries);
    }
    publish(&repository, &id);
    let deep = place.repository("deep");
    let mut id = deep.object("blob", b"x");
    for level in 0..60 {
        id = deep.tree(&[(if level == 0 { "100644" } else { "40000" }, b"d", id.as_str())]);
    }
    publish(&deep, &id);
    let large = place.repository("large");
    large.file("zeros", vec![0; 3 << 20]);
    large.commit("x");
    let mut place = place;
    place.access.limits.entries = 1000;
    place.access.limits.depth = 50;
    place.access.limits.object = 2 << 20;
    for remote in [place.server.url("a"), place.file_url("a")] {
        let error = place.checkout(&remote, None, &place.options()).unwrap_err();
        assert_eq!(error.to_string(), format!("{remote} is too large: it has more than 1000 files"));
    }
    let remote = place.server.url("deep");
    let error = place.checkout(&remote, None, &place.options()).unwrap_err();
    assert_eq!(error.to_string(), format!("{remote} is too large: it has directories more than 50 deep"));
    for remote in [place.server.url("large"), place.file_url("large")] {
        let error = place.checkout(&remote, None, &place.options()).unwrap_err();
        assert!(matches!(error, GitError::Pack { .. } | GitError::TooLarge { .. }), "{error}");
    }
    place.access.limits.object = 8 << 20;
    place.access.limits.total = 1 << 20;
    let error = place.checkout(&place.server.url("large"), None, &place.options()).unwrap_err();
    assert!(error.to_string().ends_with("its files have more than 1 MiB"), "{error}");
    place.access.limits.pack = 1000;
    let error = place.checkout(&place.server.url("large"), None, &place.options()).unwrap_err();
    assert!(error.to_string().contains("its pack has more than"), "{error}");
}

#[test]
fn redirects_stay_in_the_protocol() {
    for to in ["file:///etc", "git://127.0.0.1", "ssh://127.0.0.1", "ftp://127.0.0.1", "//127.0.0.1"] {
        let place = Place::new();
        place.repository("a");
        place.server.trouble(Trouble::Redirect(to.to_owned()));
        let error = resolve(&place.access, &place.server.url("a"), None).unwrap_err();
        assert!(matches!(error, GitError::Protocol { .. }), "{to}: {error}");
    }
    let place = Place::new();
    place.server.trouble(Trouble::Redirect(format!("http://{}", place.server.host())));
    let error = resolve(&place.access, &place.server.url("a"), None).unwrap_err();
    assert!(error.to_string().ends_with("it redirects more than 20 times"), "{error}");
}

#[test]
fn directories_of_this_machine_need_leave() {
    let mut place = Place::new();
    let repository = place.repository("a");
    repository.file("f", "x");
    repository.commit("x");
    place.access.files = false;
    let error = resolve(&place.access, &place.file_url("a"), None).unwrap_err();
    assert!(error.to_string().ends_with("read only if it was named on the command line"), "{error}");
}

#[test]
fn other_hashes_are_refused_with_the_reason() {
    let place = Place::new();
    let path = place.directory.path().join("repositories/new.git");
    std::fs::create_dir(&path).unwrap();
    kiln_testkit::git::git(&path, &["init", "-q", "--object-format=sha256"]);
    kiln_testkit::git::git(&path, &["commit", "-q", "--allow-empty", "-m", "x"]);
    for remote in [place.server.url("new"), place.file_url("new")] {
        let error = resolve(&place.access, &remote, None).unwrap_err();
        assert!(error.to_string().ends_with("named by SHA-256, which kiln does not read"), "{error}");
    }
}
