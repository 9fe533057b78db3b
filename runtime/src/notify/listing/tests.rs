use kiln_core::DirectoryOrder::{Reversed, Shuffled};

use super::*;

fn listing(names: &[&str], order: DirectoryOrder) -> Listing {
    let mut listing = Listing::default();
    for (number, name) in (1..).zip(names) {
        listing.push(name.as_bytes(), number, 8);
    }
    listing.arrange(order);
    listing
}

/// What stands in `struct linux_dirent64`s: names with the positions behind them.
fn told(mut bytes: &[u8]) -> Vec<(String, u64)> {
    let mut told = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes([bytes[16], bytes[17]]));
        let name = bytes[19..length].split(|&byte| byte == 0).next().unwrap();
        let position = u64::from_ne_bytes(bytes[8..16].try_into().unwrap());
        told.push((String::from_utf8(name.to_vec()).unwrap(), position));
        bytes = &bytes[length..];
    }
    told
}

fn all(listing: &Listing) -> Vec<(String, u64)> {
    told(&listing.lay_out(0, usize::MAX, Dirent::Fixed).unwrap().0)
}

fn names(told: &[(String, u64)]) -> Vec<&str> {
    told.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn the_last_is_the_first() {
    let reversed = listing(&[".", "..", "a", "b"], Reversed);
    assert_eq!(names(&all(&reversed)), ["b", "a", "..", "."]);
    assert_eq!(reversed.lay_out(4, 9, Dirent::Fixed), Ok((Vec::new(), END)));
}

#[test]
fn each_key_gives_its_own_order_whatever_the_kernels_is() {
    let words: Vec<String> = (0..50).map(|number| format!("file-{number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut back = words.clone();
    back.reverse();
    let shuffled = |words: &[&str], key| {
        let told = all(&listing(words, Shuffled { key }));
        names(&told).join(" ")
    };
    assert_eq!(shuffled(&words, 3), shuffled(&back, 3));
    assert_ne!(shuffled(&words, 3), shuffled(&words, 4));
    assert_ne!(shuffled(&words, 3), words.join(" "));
}

/// From each position on, with buffers of all sizes, each entry is told once.
#[test]
fn positions_lead_on() {
    let words: Vec<String> = (0..200).map(|number| format!("{number}{}", "x".repeat(number))).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for order in [Reversed, Shuffled { key: 1 }] {
        let listing = listing(&words, order);
        let whole = all(&listing);
        for size in [232, 300, 1000, 4096] {
            let (mut position, mut found) = (0, Vec::new());
            while position != u64::from(END) {
                let next = listing.after(position).unwrap();
                let (bytes, behind) = listing.lay_out(next, size, Dirent::Fixed).unwrap();
                assert!(bytes.len() <= size);
                found.extend(told(&bytes));
                position = behind.into();
            }
            assert_eq!(found, whole, "{size}");
        }
    }
}

/// Who stands behind an entry finds that place in a listing of the directory as it is later.
#[test]
fn a_position_holds_in_a_later_listing() {
    let before = listing(&["a", "b", "c", "d"], Reversed);
    let position = all(&before)[1].1;
    let later = listing(&["a", "new", "b", "c"], Reversed);
    let next = later.after(position).unwrap();
    let rest = told(&later.lay_out(next, 4096, Dirent::Fixed).unwrap().0);
    assert_eq!(names(&rest), ["b", "new", "a"]);
    assert_eq!(later.after(all(&before)[0].1), None, "what was removed is nowhere");
    assert_eq!(later.after(1 << 40), None);
}

/// `fs/readdir.c`: what does not fit, and what 32 bits do not hold.
#[test]
fn the_kernels_errors() {
    let mut listing = Listing::default();
    listing.push(b"low", 7, 8);
    listing.push(b"high", 1 << 32, 4);
    listing.arrange(Reversed);
    assert_eq!(listing.lay_out(0, 23, Dirent::Fixed), Err(Errno::INVAL));
    assert_eq!(listing.lay_out(0, 24, Dirent::Fixed).map(|(bytes, _)| bytes.len()), Ok(24));
    assert_eq!(listing.lay_out(0, 100, Dirent::Short), Err(Errno::OVERFLOW));
    assert_eq!(listing.lay_out(1, 100, Dirent::Short).map(|(bytes, _)| bytes.len()), Ok(16));
    let mut listing = Listing::default();
    listing.push(b"high", 1 << 32, 4);
    listing.push(b"low", 7, 8);
    listing.arrange(Reversed);
    assert_eq!(listing.lay_out(0, 100, Dirent::Short).map(|(bytes, _)| bytes.len()), Ok(16));
}

#[test]
fn the_older_forms_have_the_kind_at_their_end() {
    let one = listing(&["name"], Reversed);
    let (long, _) = one.lay_out(0, 100, Dirent::Long).unwrap();
    assert_eq!((long.len(), long[16], &long[18..23], long[23]), (24, 24, &b"name\0"[..], 8));
    let (short, _) = one.lay_out(0, 100, Dirent::Short).unwrap();
    assert_eq!((short.len(), short[8], &short[10..15], short[15]), (16, 16, &b"name\0"[..], 8));
    assert_eq!(short[..8], [1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]);
}

/// Two names of the same position, which are found by looking for them: each has a place of its own.
#[test]
fn names_whose_positions_are_the_same_are_told_apart() {
    let mut seen = std::collections::HashMap::new();
    let pair = (0_u64..).find_map(|number| {
        let name = number.to_string();
        let before = seen.insert(position(name.as_bytes(), 0), name.clone());
        before.map(|before| (before, name))
    });
    let (one, other) = pair.unwrap();
    for order in [[one.as_str(), &other], [&other, &one]] {
        let told = all(&listing(&[".", order[0], order[1]], Reversed));
        assert_eq!(names(&told), [order[1], order[0], "."]);
        assert_ne!(told[0].1, told[1].1);
    }
}
