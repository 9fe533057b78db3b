use std::path::Path;

use kiln_core::Cancel;

use super::*;
use crate::{HostFiles, RegistryConfig};

/// A machine with these files: `registries.conf`, and podman's `short-name-aliases.conf`.
fn client(directory: &Path, conf: &str, aliases: &str, short_names: ShortNames) -> RegistryClient {
    let write = |name: &str, text: &str| {
        std::fs::write(directory.join(name), text).unwrap();
        vec![directory.join(name)]
    };
    let files = HostFiles {
        registries_conf: write("registries.conf", conf),
        short_name_aliases: write("short-name-aliases.conf", aliases),
        ..HostFiles::default()
    };
    RegistryClient::new(RegistryConfig { files, short_names, ..RegistryConfig::default() }, Cancel::new())
        .unwrap()
}

const ALIASES: &str = "[aliases]\n'fedora' = 'f.example/fedora'\n'team/tool' = 'q.example/t/tool'\n";
const ONE: &str = "unqualified-search-registries = ['a.example']\n";
const TWO: &str = "unqualified-search-registries = ['a.example:5000/hub', 'docker.io']\n";
const MINE: &str = "[aliases]\n'fedora' = 'mine.example/fedora'\n'gone' = 'mine.example/gone'\n";

/// registries.conf; podman's own file; what is written; what it may be, or a part of the error.
type Row<'a> = (String, &'a str, &'a str, Result<Vec<&'a str>, &'a str>);

/// What people wrote in threads about it: containers/podman#9390 and #11530, docker's own names, names of two words.
#[test]
fn an_alias_decides_then_the_search_registries_then_docker() {
    let cat = |parts: &[&str]| parts.concat();
    let mode = |mode: &str| format!("short-name-mode = '{mode}'\n");
    let digest = kiln_core::Digest::of(b"").to_string();
    let pinned = format!("fedora@{digest}");
    let pinned_full = format!("f.example/fedora@{digest}");
    let rows: Vec<Row> = vec![
        (String::new(), "", "fedora", Ok(vec!["docker.io/library/fedora:latest"])),
        (ALIASES.to_owned(), "", "fedora", Ok(vec!["f.example/fedora:latest"])),
        (ALIASES.to_owned(), "", "fedora:41", Ok(vec!["f.example/fedora:41"])),
        (ALIASES.to_owned(), "", &pinned, Ok(vec![&pinned_full])),
        (ALIASES.to_owned(), "", "library/fedora", Ok(vec!["f.example/fedora:latest"])),
        (ALIASES.to_owned(), "", "docker.io/library/fedora", Ok(vec!["docker.io/library/fedora:latest"])),
        (ALIASES.to_owned(), "", "docker.io/fedora", Ok(vec!["docker.io/library/fedora:latest"])),
        (ALIASES.to_owned(), "", "index.docker.io/fedora", Ok(vec!["docker.io/library/fedora:latest"])),
        (ALIASES.to_owned(), "", "team/tool:1", Ok(vec!["q.example/t/tool:1"])),
        (ALIASES.to_owned(), "", "tool", Ok(vec!["docker.io/library/tool:latest"])),
        (ALIASES.to_owned(), "", "other/fedora", Ok(vec!["docker.io/other/fedora:latest"])),
        (ALIASES.to_owned(), MINE, "fedora", Ok(vec!["mine.example/fedora:latest"])),
        (cat(&[ONE, ALIASES]), "", "fedora", Ok(vec!["f.example/fedora:latest"])),
        (cat(&[ONE, ALIASES]), "", "python:3", Ok(vec!["a.example/python:3"])),
        (cat(&[ONE, &mode("enforcing")]), "", "python", Ok(vec!["a.example/python:latest"])),
        (
            TWO.to_owned(),
            "",
            "python",
            Ok(vec!["a.example:5000/hub/python:latest", "docker.io/library/python:latest"]),
        ),
        (
            cat(&[TWO, &mode("permissive")]),
            "",
            "team/x",
            Ok(vec!["a.example:5000/hub/team/x:latest", "docker.io/team/x:latest"]),
        ),
        (cat(&[TWO, &mode("enforcing")]), "", "python", Err("\"enforcing\"")),
        (cat(&[TWO, &mode("enforcing"), ALIASES]), "", "fedora", Ok(vec!["f.example/fedora:latest"])),
        (cat(&[ONE, &mode("disabled"), ALIASES]), "", "fedora", Ok(vec!["a.example/fedora:latest"])),
        (cat(&[ONE, "[aliases]\n'x' = ''\n"]), "", "x", Ok(vec!["a.example/x:latest"])),
        ("unqualified-search-registries = []\n".to_owned(), "", "x", Ok(vec!["docker.io/library/x:latest"])),
        (
            "unqualified-search-registries = ['docker.io', 'index.docker.io']\n".to_owned(),
            "",
            "x",
            Ok(vec!["docker.io/library/x:latest"]),
        ),
        ("[aliases]\n'x' = 'y'\n".to_owned(), "", "x", Err("names no registry")),
        ("[aliases]\n'x' = 'a.example/y:1'\n".to_owned(), "", "x", Err("has a tag or digest")),
        ("[aliases]\n'x' = 'y'\n".to_owned(), "", "z", Ok(vec!["docker.io/library/z:latest"])),
        ("short-name-mode = 'guess'\n".to_owned(), "", "x", Err("line 1: ")),
    ];
    for (conf, aliases, written, expected) in rows {
        let directory = tempfile::tempdir().unwrap();
        let name: ImageRef = written.parse().unwrap();
        let found = client(directory.path(), &conf, aliases, ShortNames::Containers).meaning(&name);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                let images: Vec<String> = found.candidates.iter().map(ToString::to_string).collect();
                assert_eq!(images, expected, "{written} by {conf:?}");
                assert!(found.candidates.iter().all(|image| !image.short.0), "{written} by {conf:?}");
            }
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{written} by {conf:?}: {error}");
                assert!(error.to_string().contains("registries.conf"), "{written} by {conf:?}: {error}");
            }
            (found, expected) => panic!("{written} by {conf:?}: {found:?} in place of {expected:?}"),
        }
        let docker = client(directory.path(), &conf, aliases, ShortNames::Docker).meaning(&name).unwrap();
        assert_eq!(docker, Meaning { candidates: vec![name], decided_by: None }, "{written} by {conf:?}");
    }
}

#[test]
fn a_name_with_its_registry_means_itself_whatever_files_say() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["fedora", "team/tool", "a/b/c", "x:1", "library/x", "localhost", "f.example"];
    let hosts = ["docker.io", "index.docker.io", "localhost", "127.0.0.1:5000", "f.example", "a:1"];
    for conf in ["", ALIASES, ONE, TWO, "not TOML [", "short-name-mode = 'enforcing'\n"] {
        let client = client(directory.path(), conf, MINE, ShortNames::Containers);
        for (host, name) in hosts.iter().flat_map(|host| names.iter().map(move |name| (host, name))) {
            let Ok(name) = format!("{host}/{name}").parse::<ImageRef>() else { continue };
            let meaning = client.meaning(&name).unwrap();
            assert_eq!(meaning.candidates, std::slice::from_ref(&name), "{name} by {conf:?}");
            assert_eq!(meaning.describe(&name), name.to_string());
            // What was resolved once stays what it is.
            let text: ImageRef = name.to_string().parse().unwrap();
            assert_eq!(client.meaning(&text).unwrap(), meaning, "{name} by {conf:?}");
        }
    }
}

#[test]
fn only_who_has_no_such_image_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let client = client(directory.path(), TWO, "", ShortNames::Containers);
    let name: ImageRef = "python".parse().unwrap();
    let (host, repository) = ("a.example:5000".to_owned(), "hub/python".to_owned());
    let none = || RegistryError::NotFound {
        host: host.clone(),
        repository: repository.clone(),
        reference: "latest".to_owned(),
        detail: None,
    };
    let denied =
        || RegistryError::Unauthorized { host: host.clone(), repository: repository.clone(), detail: None };
    let down = || RegistryError::Unreachable { host: host.clone(), cause: "refused".to_owned() };
    let wrong = || RegistryError::Status { host: host.clone(), status: 500, detail: None };
    for (error, passed) in [(none(), true), (denied(), true), (down(), false), (wrong(), false)] {
        let had = client.first(&name, |image| match image.registry.as_str() {
            "docker.io" => Ok(image.to_string()),
            _ => Err(error.clone()),
        });
        match had {
            Ok(had) if passed => {
                assert_eq!(had.what, "docker.io/library/python:latest");
                assert_eq!(had.passed.len(), 1);
            }
            Err(given) if !passed => assert_eq!(given, error),
            other => panic!("{error}: {other:?}"),
        }
    }
    let nobody = client.first(&name, |_| Err::<(), _>(none())).unwrap_err();
    let text = nobody.to_string();
    assert!(text.starts_with("none of the registries that ") && text.contains("has python"), "{text}");
    assert!(matches!(nobody.root(), RegistryError::NotFound { .. }), "{nobody:?}");
}
