use super::*;

#[test]
fn what_is_stated_becomes_an_expression() {
    let table = [
        ("MIT", "MIT"),
        ("mit", "MIT"),
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("(MIT or apache-2.0) and Zlib", "(MIT OR Apache-2.0) AND Zlib"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("GPL-2+ and LGPL-2.1", "GPL-2.0-or-later AND LGPL-2.1"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("Expat", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("BSD", "LicenseRef-BSD"),
        ("GPLv2+ and BSD with advertising", "LicenseRef-GPLv2--and-BSD-with-advertising"),
        ("MIT AND", "LicenseRef-MIT-AND"),
        ("(MIT", "LicenseRef--MIT"),
        ("LicenseRef-Fedora-Public-Domain", "LicenseRef-Fedora-Public-Domain"),
        ("MPL-1.1+", "MPL-1.1+"),
        ("public-domain OR MIT", "LicenseRef-public-domain OR MIT"),
    ];
    for (stated, expected) in table {
        assert_eq!(expression(stated, &mut References::new()), expected, "{stated:?}");
    }
}

#[test]
fn what_is_not_listed_is_defined_with_its_text() {
    let mut references = References::new();
    assert_eq!(expression("a b", &mut references), "LicenseRef-a-b");
    let other = expression("a-b", &mut references);
    assert_ne!(other, "LicenseRef-a-b");
    let long = expression(&"All rights reserved. ".repeat(20), &mut references);
    assert_eq!(references.len(), 3);
    assert_eq!(references["LicenseRef-a-b"], "a b");
    assert_eq!(references[&other], "a-b");
    assert!(references[&long].starts_with("All rights"));
}

#[test]
fn deep_parentheses_are_a_text() {
    let deep = "(".repeat(100_000);
    assert!(expression(&deep, &mut References::new()).starts_with("LicenseRef-"));
}
