//! COPY against a naive model: a map from paths to files, into which the source is put one by one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kiln_core::Selection;
use proptest::prelude::*;

use super::tests::{World, open};
use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir,
    File(u8),
    Link(String),
}

type Tree = BTreeMap<PathBuf, Node>;

/// Puts a node at a path, unless something on the way is no directory.
fn put(tree: &mut Tree, path: &Path, node: Node) -> bool {
    for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        if !matches!(tree.get(parent), None | Some(Node::Dir)) {
            return false;
        }
    }
    for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        tree.insert(parent.to_owned(), Node::Dir);
    }
    let clash = match (tree.get(path), &node) {
        (None | Some(Node::Dir), Node::Dir) => false,
        (Some(Node::Dir), _) | (Some(_), Node::Dir) => true,
        _ => false,
    };
    if !clash {
        tree.insert(path.to_owned(), node);
    }
    !clash
}

/// Trees with few names, so that they meet. Links are always called `l`, which no destination goes through.
fn tree() -> impl Strategy<Value = Tree> {
    let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "l"]), 1..4);
    let node =
        prop_oneof![Just(Node::Dir), any::<u8>().prop_map(Node::File), Just(Node::Link("a".to_owned()))];
    prop::collection::vec((path, node), 0..12).prop_map(|entries| {
        let mut tree = Tree::new();
        for (path, node) in entries {
            let path: PathBuf = path.iter().collect();
            let at_link = path.file_name() == Some("l".as_ref());
            let node = match node {
                Node::Link(_) if !at_link => Node::File(0),
                node => node,
            };
            put(&mut tree, &path, node);
        }
        tree
    })
}

fn write(root: &Path, tree: &Tree) {
    for (path, node) in tree {
        let at = root.join(path);
        match node {
            Node::Dir => fs::create_dir(at).unwrap(),
            Node::File(byte) => fs::write(at, [*byte]).unwrap(),
            Node::Link(target) => symlink(target, at).unwrap(),
        }
    }
}

/// Reads a tree over another, as overlay shows a layer.
fn read_over(root: &Path, below: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let at = root.join(&path);
        let kind = at.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            tree.insert(path.clone(), Node::Dir);
            read_over(root, &path, tree);
        } else if kind.is_symlink() {
            let target = fs::read_link(at).unwrap().to_string_lossy().into_owned();
            tree.insert(path, Node::Link(target));
        } else {
            tree.insert(path, Node::File(fs::read(at).unwrap()[0]));
        }
    }
}

fn expected(parent: &Tree, sources: [&Tree; 2], dest: &str) -> Option<Tree> {
    let mut tree = parent.clone();
    let dest = Path::new(dest.trim_start_matches('/'));
    for source in sources {
        if !dest.as_os_str().is_empty() && !put(&mut tree, dest, Node::Dir) {
            return None;
        }
        for (path, node) in source {
            if !put(&mut tree, &dest.join(path), node.clone()) {
                return None;
            }
        }
    }
    Some(tree)
}

/// Patterns that say something about such trees.
fn patterns() -> impl Strategy<Value = Vec<&'static str>> {
    let pattern = prop::sample::select(vec!["a", "b/c", "*", "*/a", "**/b", "**/l", "!b", "!a/b/c", "!**/c"]);
    prop::collection::vec(pattern, 0..4)
}

/// Whether the last pattern that matches a path, or a directory above it, leaves it out.
fn left_out(patterns: &[&str], path: &Path) -> bool {
    let matches = |pattern: &str, path: &Path| {
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        match pattern.strip_prefix("**/") {
            Some(name) => parts.last() == Some(&name),
            None => {
                let wanted: Vec<&str> = pattern.split('/').collect();
                wanted.len() == parts.len()
                    && wanted.iter().zip(&parts).all(|(want, part)| *want == "*" || want == part)
            }
        }
    };
    let above = |path: &Path| -> Vec<PathBuf> {
        path.ancestors().filter(|at| !at.as_os_str().is_empty()).map(Path::to_owned).collect()
    };
    patterns.iter().fold(false, |out, pattern| {
        let plain = pattern.strip_prefix('!').unwrap_or(pattern);
        if above(path).iter().any(|at| matches(plain, at)) { !pattern.starts_with('!') } else { out }
    })
}

/// What is left of a tree: what is wanted and not left out, with the directories that lead there.
fn filtered(source: &Tree, wanted: Option<&str>, exclude: &[&str]) -> Tree {
    let mut tree = Tree::new();
    for (path, node) in source {
        let is_wanted = wanted.is_none_or(|wanted| left_out(&[wanted], path));
        if is_wanted && !left_out(exclude, path) {
            assert!(put(&mut tree, path, node.clone()));
        }
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_over_its_parent_is_what_the_model_says(
        parent in tree(),
        first in tree(),
        second in tree(),
        dest in prop::sample::select(vec!["/", "/a", "/a/b", "/new/x"]),
    ) {
        let world = World::new(&["one/", "two/"], &[]);
        write(&world.at("parent"), &parent);
        write(&world.at("source/one"), &first);
        write(&world.at("source/two"), &second);
        let got = world.copy_with(&["one", "two"], dest, |_| {});
        match expected(&parent, [&first, &second], dest) {
            None => prop_assert!(
                matches!(got, Err(CopyError::FileInTheWay { .. } | CopyError::DirectoryInTheWay { .. })),
                "{:?}", got
            ),
            Some(expected) => {
                got.unwrap();
                let mut merged = parent.clone();
                read_over(&world.at("layer"), Path::new(""), &mut merged);
                prop_assert_eq!(merged, expected);
            }
        }
    }

    #[test]
    fn a_clone_is_the_same_tree(tree in tree()) {
        let world = World::new(&[], &[]);
        write(&world.at("source"), &tree);
        clone_tree(open(&world.at("source")), Path::new("source"), &world.at("layer"), &Cancel::new()).unwrap();
        let mut got = Tree::new();
        read_over(&world.at("layer"), Path::new(""), &mut got);
        prop_assert_eq!(got, tree);
    }

    #[test]
    fn exclude_and_parents_are_what_the_model_says(
        parent in tree(),
        source in tree(),
        wanted in prop::option::of(prop::sample::select(vec!["a", "*", "a/*", "*/b", "**/c"])),
        exclude in patterns(),
        dest in prop::sample::select(vec!["/", "/a", "/new/x"]),
    ) {
        let world = World::new(&["s/"], &[]);
        write(&world.at("parent"), &parent);
        write(&world.at("source/s"), &source);
        let path = wanted.map_or_else(|| "s".to_owned(), |wanted| format!("s/{wanted}"));
        let selection = Selection {
            exclude: exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
            parents: wanted.map(|_| "s".to_owned()),
            ..Selection::wildcard(path)
        };
        let left = filtered(&source, wanted, &exclude);
        let missing = wanted == Some("a") && !source.contains_key(Path::new("a"));
        let selected = world.selected(&selection);
        if missing {
            prop_assert!(selected.is_err());
            return Ok(());
        }
        let got = world.copy_inputs(&[selected.unwrap()], dest, |_| {}, None);
        match expected(&parent, [&left, &Tree::new()], dest) {
            None => prop_assert!(got.is_err(), "{:?}", got),
            Some(expected) => {
                got.unwrap();
                let mut merged = parent.clone();
                read_over(&world.at("layer"), Path::new(""), &mut merged);
                prop_assert_eq!(merged, expected);
            }
        }
    }
}
