use super::*;

#[test]
fn ranges_of_one_user() {
    let text = "# comment\nann:100000:65536\nbob:200000:10\n1000:300000:5\nann:400000:7\nann:x:1\nann:1:0\nann:4294967295:2\nann:1:2:3\n";
    for (name, uid, expected) in [
        (Some("ann"), 5, vec![(100_000, 65_536), (400_000, 7)]),
        (Some("ann"), 1000, vec![(100_000, 65_536), (300_000, 5), (400_000, 7)]),
        (None, 1000, vec![(300_000, 5)]),
        (Some("eve"), 7, vec![]),
    ] {
        assert_eq!(subordinate_ranges(text, name, uid), expected, "{name:?} {uid}");
    }
}

#[test]
fn map_names_every_id_once() {
    let range = |inside, outside, count| IdRange { inside, outside, count };
    for (own, ranges, expected) in [
        (1000, vec![], vec![range(0, 1000, 1)]),
        (1000, vec![(100_000, 65_536)], vec![range(0, 1000, 1), range(1, 100_000, 65_536)]),
        (1000, vec![(10, 5), (100, 5)], vec![range(0, 1000, 1), range(1, 10, 5), range(6, 100, 5)]),
        (12, vec![(10, 5)], vec![range(0, 12, 1), range(1, 10, 2), range(3, 13, 2)]),
        (1, vec![(10, 5), (8, 10)], vec![range(0, 1, 1), range(1, 10, 5), range(6, 8, 2), range(8, 15, 3)]),
        (1, vec![(10, 5), (11, 2)], vec![range(0, 1, 1), range(1, 10, 5)]),
    ] {
        assert_eq!(map_of(own, &ranges), expected, "{own} {ranges:?}");
    }
}

#[test]
fn maps_are_read_and_asked() {
    let all = parse_map("         0          0 4294967295\n");
    assert!(is_everything(&all) && contains(&all, 0) && contains(&all, 65_534));
    let two = parse_map("0 1000 1\n1 100000 65536\n");
    assert!(!is_everything(&two));
    for (id, expected) in [(0, true), (1, true), (65_536, true), (65_537, false)] {
        assert_eq!(contains(&two, id), expected, "{id}");
    }
    assert_eq!(identity_of(&two), "0 0 1\n1 1 65536\n");
    assert_eq!(map_arguments(&two).join(" "), "0 1000 1 1 100000 65536");
}

#[test]
fn a_free_block_is_nobody_elses() {
    let rows: [(&[&str], u32); 4] = [
        (&["", ""], 100_000),
        (&["a:100000:65536\n", "a:100000:65536\n"], 165_536),
        (&["a:1000:10\nbroken\n", "b:200000:5\n"], 200_005),
        (&["a:4294901761:65535\nb:100000:1\n", ""], 100_001),
    ];
    for (texts, first) in rows {
        assert_eq!(free_block(texts, 65_536), first, "{texts:?}");
    }
}

#[test]
fn a_mount_shows_one_owner_as_another() {
    let all = [IdRange { inside: 0, outside: 0, count: u32::MAX }];
    assert_eq!(shown_as(&all, 1000, 0), "1000 0 1\n1 1 999\n1001 1001 4294966294\n");
    assert_eq!(shown_as(&all, 1000, 5), "1000 5 1\n0 0 5\n6 6 994\n1001 1001 4294966294\n");
    assert_eq!(shown_as(&all, 5, 5), "5 5 1\n0 0 5\n6 6 4294967289\n");
    let some = [IdRange { inside: 0, outside: 7, count: 3 }, IdRange { inside: 10, outside: 20, count: 2 }];
    assert_eq!(shown_as(&some, 2, 0), "2 0 1\n1 1 1\n10 10 2\n");
    assert_eq!(shown_as(&some, 11, 10), "11 10 1\n0 0 3\n");
}
