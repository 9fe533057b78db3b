use super::*;

#[test]
fn times_with_fractions_and_signs() {
    let cases: [(&str, Option<(i64, u32)>); 9] = [
        ("0", Some((0, 0))),
        ("1700000000", Some((1_700_000_000, 0))),
        ("1700000000.25", Some((1_700_000_000, 250_000_000))),
        ("1.123456789123", Some((1, 123_456_789))),
        ("-1.5", Some((-2, 500_000_000))),
        ("-2", Some((-2, 0))),
        ("-0.5", Some((-1, 500_000_000))),
        ("1.x", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_time(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn pax_records_may_hold_newlines_and_must_add_up() {
    let mut found = Extensions::new();
    assert_eq!(parse_pax(b"12 path=a/b\n22 SCHILY.xattr.a=\n\n\n", &mut found), None, "wrong length");
    found.clear();
    assert_eq!(parse_pax(b"12 path=a/b\n20 SCHILY.xattr.a=\n\n", &mut found), Some(()));
    assert_eq!(found[&b"path"[..]], b"a/b");
    assert_eq!(found[&b"SCHILY.xattr.a"[..]], b"\n");
    assert_eq!(parse_pax(b"8 path=\n", &mut found), Some(()));
    assert!(!found.contains_key(&b"path"[..]));
    for bad in [&b"x"[..], b"5 a=b", b"0 a=b\n", b"99 a=b\n", b"18446744073709551615 a=b\n", b"6 a b\n"] {
        assert_eq!(parse_pax(bad, &mut found), None, "{:?}", String::from_utf8_lossy(bad));
    }
}
