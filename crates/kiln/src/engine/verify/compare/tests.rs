use std::io::{Cursor, Read};

use super::{PathDifference, differences};
use crate::Error;

/// A path, its content, and what is to be done to its header.
type Told<'a> = (&'a str, &'a str, fn(&mut tar::Header));

/// A tar of files, of what their fields are told to be.
fn tar(entries: &[Told<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content, change) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(7);
        header.set_uid(0);
        header.set_gid(0);
        change(&mut header);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn compare(first: &[u8], other: &[u8]) -> Vec<(String, String, String, String)> {
    let open = |bytes: &[u8]| -> Result<Box<dyn Read>, Error> { Ok(Box::new(Cursor::new(bytes.to_vec()))) };
    let found = differences(&|| open(first), &|| open(other)).unwrap();
    let told = |PathDifference { path, field, first, other, .. }| (path, field, first, other);
    found.into_iter().map(told).collect()
}

fn row(path: &str, field: &str, first: &str, other: &str) -> (String, String, String, String) {
    (path.to_owned(), field.to_owned(), first.to_owned(), other.to_owned())
}

#[test]
fn each_path_is_told_with_its_first_field() {
    let plain: fn(&mut tar::Header) = |_| {};
    let first = tar(&[
        ("a", "same", plain),
        ("b", "x", |header| header.set_mode(0o600)),
        ("c", "x", |header| header.set_uid(3)),
        ("d", "x", plain),
        ("e", "12", plain),
        ("g", "x", plain),
    ]);
    let other = tar(&[
        ("a", "same", plain),
        ("b", "y", plain),
        ("c", "x", plain),
        ("d", "x", |header| header.set_mtime(9)),
        ("e", "1", plain),
        ("f", "", plain),
    ]);
    assert_eq!(
        compare(&first, &other),
        [
            row("/b", "mode", "0600", "0644"),
            row("/c", "uid", "3", "0"),
            row("/d", "mtime", "7", "9"),
            row("/e", "content", "byte 1: 12 (2 bytes)", "byte 1: 1 (1 bytes)"),
            row("/f", "path", "", "regular"),
            row("/g", "path", "regular", ""),
        ]
    );
    assert_eq!(compare(&first, &first), []);
}

#[test]
fn content_is_shown_where_it_differs() {
    let plain: fn(&mut tar::Header) = |_| {};
    let long = "0123456789".repeat(20_000);
    // Across the border between two pieces too.
    for at in [0, 5, 65_535, 65_536, 65_540, 199_999] {
        let mut changed = long.clone();
        changed.replace_range(at..=at, "X");
        let found = compare(&tar(&[("f", &long, plain)]), &tar(&[("f", &changed, plain)]));
        let from = at.saturating_sub(12);
        let to = (from + 40).min(long.len());
        let shown = |text: &str| {
            format!(
                "byte {at}: {}",
                &text[from..to.min(from + (found[0].2.len() - format!("byte {at}: ").len()))]
            )
        };
        assert_eq!(found, [row("/f", "content", &shown(&long), &shown(&changed))], "{at}");
        assert!(found[0].3.contains('X'), "{found:?}");
    }
}

#[test]
fn what_is_no_text_is_shown_as_numbers_from_there_on() {
    let plain: fn(&mut tar::Header) = |_| {};
    let (first, other) = ("\u{7}abc\0\0\u{1}\0tail of this", "\u{7}abc\0\0\u{2}\0tail of it");
    let found = compare(&tar(&[("x.bin", first, plain)]), &tar(&[("x.bin", other, plain)]));
    let numbers = ["01 00 74 61 69 6c 20 6f 66 20 74 68", "02 00 74 61 69 6c 20 6f 66 20 69 74"];
    let (first, other) =
        (format!("byte 6: {} (20 bytes)", numbers[0]), format!("byte 6: {} (18 bytes)", numbers[1]));
    assert_eq!(found, [row("/x.bin", "content", &first, &other)]);
}

#[test]
fn another_order_is_a_difference() {
    let plain: fn(&mut tar::Header) = |_| {};
    let (first, other) =
        (tar(&[("a", "", plain), ("b", "", plain)]), tar(&[("b", "", plain), ("a", "", plain)]));
    assert_eq!(compare(&first, &other), [row("/a", "order", "0", "1")]);
}
