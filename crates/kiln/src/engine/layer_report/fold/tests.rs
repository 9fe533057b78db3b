use std::collections::BTreeMap;

use kiln_store::Said;

use super::{Counts, Fold};

/// `d/`: directory; `f=3`: file of 3 bytes; `f->t`: hard link; `@f`: other; `-f`: deleted; `!d`: opaque.
fn said(text: &str) -> (Vec<u8>, Said) {
    let own = |path: &str| path.as_bytes().to_vec();
    if let Some(path) = text.strip_prefix('-') {
        return (own(path), Said::Deleted);
    }
    if let Some(path) = text.strip_prefix('!') {
        return (own(path), Said::Opaque);
    }
    if let Some(path) = text.strip_prefix('@') {
        return (own(path), Said::Other);
    }
    if let Some((path, target)) = text.split_once("->") {
        return (own(path), Said::HardLink { target: own(target) });
    }
    match text.split_once('=') {
        Some((path, size)) => (own(path), Said::File { size: size.parse().unwrap() }),
        None => (own(text.trim_end_matches('/')), Said::Directory),
    }
}

fn fold(layers: &[&[&str]]) -> Fold {
    let mut fold = Fold::default();
    for layer in layers {
        fold.next_layer();
        for text in *layer {
            let (path, said) = said(text);
            fold.see(&path, said);
        }
    }
    fold
}

#[test]
fn what_layers_do_to_each_other() {
    // Of each layer: bytes, added, changed, deleted, wasted; and what is seen in the end.
    type Row<'a> = (&'a [&'a [&'a str]], &'a [[u64; 5]], u64);
    let rows: &[Row<'_>] = &[
        (&[&["a=3", "d/", "d/b=4", "@link"]], &[[7, 3, 0, 0, 0]], 7),
        (&[&["a=3"], &["a=5"]], &[[3, 1, 0, 0, 3], [5, 0, 1, 0, 0]], 5),
        (&[&["a=3"], &["-a"]], &[[3, 1, 0, 0, 3], [0, 0, 0, 1, 0]], 0),
        (&[&["d/", "d/a=3", "d/e/", "d/e/b=4"], &["-d"]], &[[7, 2, 0, 0, 7], [0, 0, 0, 2, 0]], 0),
        (&[&["d/", "d/a=3", "dx=1"], &["-d"]], &[[4, 2, 0, 0, 3], [0, 0, 0, 1, 0]], 1),
        // Opaque hides what was there, in whatever order it is said.
        (&[&["d/", "d/a=3", "d/b=4"], &["d/", "!d", "d/b=5"]], &[[7, 2, 0, 0, 7], [5, 0, 1, 1, 0]], 5),
        (&[&["d/", "d/a=3", "d/b=4"], &["d/", "d/b=5", "!d"]], &[[7, 2, 0, 0, 7], [5, 0, 1, 1, 0]], 5),
        // A deletion is never of what the layer brings itself.
        (&[&["a=3"], &["a=5", "-a"]], &[[3, 1, 0, 0, 3], [5, 0, 1, 0, 0]], 5),
        (&[&["a=3"], &["-a", "a=5"]], &[[3, 1, 0, 0, 3], [5, 0, 1, 0, 0]], 5),
        // What nobody has cannot be deleted.
        (&[&["a=3"], &["-b"]], &[[3, 1, 0, 0, 0], [0, 0, 0, 0, 0]], 3),
        // A file instead of a directory, and the other way around.
        (&[&["d/", "d/a=3"], &["d=4"]], &[[3, 1, 0, 0, 3], [4, 1, 0, 1, 0]], 4),
        (&[&["a=3"], &["a/", "a/b=4"]], &[[3, 1, 0, 0, 3], [4, 1, 0, 1, 0]], 4),
        // Bytes are wasted when their last name goes.
        (&[&["a=3", "b->a"], &["-a"]], &[[3, 2, 0, 0, 0], [0, 0, 0, 1, 0]], 3),
        (&[&["a=3", "b->a"], &["-a"], &["-b"]], &[[3, 2, 0, 0, 3], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0]], 0),
        (&[&["b->nowhere"]], &[[0, 1, 0, 0, 0]], 0),
        (&[&["a=3", "a->a"]], &[[3, 1, 0, 0, 0]], 3),
        // Said twice, the last counts.
        (&[&["a=3", "a=4"]], &[[7, 1, 0, 0, 3]], 4),
        (&[&["d/", "d/a=1"], &["d/"]], &[[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], 1),
    ];
    for (layers, expected, visible) in rows {
        let fold = fold(layers);
        let counts = |Counts { bytes, added, changed, deleted, wasted }: &Counts| {
            [*bytes, *added, *changed, *deleted, *wasted]
        };
        assert_eq!(fold.layers().iter().map(counts).collect::<Vec<_>>(), *expected, "{layers:?}");
        assert_eq!(fold.visible(), *visible, "{layers:?}");
        let bytes: u64 = fold.layers().iter().map(|counts| counts.bytes).sum();
        let wasted: u64 = fold.layers().iter().map(|counts| counts.wasted).sum();
        assert_eq!(bytes - wasted, *visible, "{layers:?}");
        assert_eq!(fold.hidden.iter().map(|hidden| hidden.bytes).sum::<u64>(), wasted, "{layers:?}");
    }
}

/// A tree as overlay would merge it, told in the simplest way there is.
fn merged(layers: &[Vec<(Vec<u8>, Said)>]) -> BTreeMap<Vec<u8>, Option<u64>> {
    let mut tree: BTreeMap<Vec<u8>, Option<u64>> = BTreeMap::new();
    let is_in = |path: &[u8], dir: &[u8]| path.starts_with(dir) && path.get(dir.len()) == Some(&b'/');
    for layer in layers {
        for (path, said) in layer {
            match said {
                Said::Deleted => tree.retain(|found, _| found != path && !is_in(found, path)),
                Said::Opaque => tree.retain(|found, _| !is_in(found, path)),
                _ => {}
            }
        }
        for (path, said) in layer {
            match said {
                Said::Directory => drop(tree.insert(path.clone(), None)),
                Said::File { size } => {
                    tree.retain(|found, _| !is_in(found, path));
                    tree.insert(path.clone(), Some(*size));
                }
                _ => {}
            }
        }
    }
    tree
}

#[test]
fn what_is_seen_is_the_merged_tree_whatever_the_layers() {
    // A small generator of our own: the same thousand cases each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for case in 0..1000 {
        let mut layers: Vec<Vec<(Vec<u8>, Said)>> = Vec::new();
        for _ in 0..=next(4) {
            let mut layer: BTreeMap<Vec<u8>, Said> = BTreeMap::new();
            for _ in 0..next(7) {
                let names = [&b"a"[..], b"b", b"ab"];
                let mut path = names[usize::try_from(next(3)).unwrap()].to_vec();
                for _ in 0..next(3) {
                    // What is in a directory needs that directory, in this layer or below.
                    if !matches!(layer.get(&path), None | Some(Said::Directory | Said::Opaque)) {
                        break;
                    }
                    layer.entry(path.clone()).or_insert(Said::Directory);
                    path.push(b'/');
                    path.extend_from_slice(names[usize::try_from(next(3)).unwrap()]);
                }
                let taken = layer.contains_key(&path);
                let said = match next(5) {
                    0 => Said::Deleted,
                    1 if !taken => Said::Directory,
                    1 => continue,
                    _ => Said::File { size: next(100) + 1 },
                };
                if !taken {
                    layer.insert(path, said);
                }
            }
            let mut said: Vec<(Vec<u8>, Said)> = layer.into_iter().collect();
            // Some directories hide what is below them.
            let opaque: Vec<_> = said
                .iter()
                .filter(|(_, said)| *said == Said::Directory)
                .filter(|_| next(4) == 0)
                .map(|(path, _)| (path.clone(), Said::Opaque))
                .collect();
            said.extend(opaque);
            layers.push(said);
        }
        let mut fold = Fold::default();
        for layer in &layers {
            fold.next_layer();
            for (path, said) in layer {
                fold.see(path, said.clone());
            }
        }
        let expected = merged(&layers);
        let seen: BTreeMap<Vec<u8>, Option<u64>> = fold
            .tree
            .iter()
            .map(|(path, node)| (path.clone(), node.content.map(|content| fold.contents[content].bytes)))
            .collect();
        assert_eq!(seen, expected, "case {case}: {layers:?}");
        assert_eq!(fold.visible(), expected.values().flatten().sum::<u64>(), "case {case}: {layers:?}");
        let bytes: u64 = fold.layers().iter().map(|counts| counts.bytes).sum();
        let wasted: u64 = fold.layers().iter().map(|counts| counts.wasted).sum();
        assert_eq!(bytes - wasted, fold.visible(), "case {case}: {layers:?}");
    }
}
