use super::{Colours, clean};

/// A line of a step's, what is shown of it in plain progress, and what in a live display.
const TABLE: &[(&str, &str, &str)] = &[
    ("text, é, 漢字", "text, é, 漢字", "text, é, 漢字"),
    ("a\tb", "a\tb", "a b"),
    // Colours, ended by the step or by us.
    ("\x1b[31mred\x1b[0m end", "\x1b[31mred\x1b[0m end", "red end"),
    ("\x1b[1;38;5;196mbright", "\x1b[1;38;5;196mbright\x1b[0m", "bright"),
    ("\x1b[38:2::1:2:3mtrue\x1b[m", "\x1b[38:2::1:2:3mtrue\x1b[m", "true"),
    ("\u{9b}32mgreen", "\x1b[32mgreen\x1b[0m", "green"),
    // The cursor, erasing, scrolling, other screens.
    ("a\x1b[2Kb\x1b[1Ac\x1b[10;10Hd\x1b[Je", "abcde", "abcde"),
    ("\x1b[?1049h\x1b[?25lhidden", "hidden", "hidden"),
    ("\x1b7\x1b8\x1bMup\x1bc\x1b(0", "up", "up"),
    ("\x1b#8\x1b =x", "x", "x"),
    // The title, the clipboard, links, pictures; ended by BEL, by ST, or not at all.
    ("\x1b]0;title\x07text", "text", "text"),
    ("\x1b]52;c;cm0gLXJm\x1b\\text", "text", "text"),
    ("\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\", "link", "link"),
    ("\x1bPq#0;2;0;0;0\x1b\\\u{9d}0;t\u{9c}text\x1b_x", "text", "text"),
    ("\x1b]0;never ended", "", ""),
    // What a terminal would answer to.
    ("\x1b[6n\x1b[c\x1b[>4;1m\x1b[?1m\x1b[5;1 mx", "x", "x"),
    // Characters of their own; and what is broken off.
    ("\x07\x08\x0b\x0c\x0e\x7f\u{84}x", "x", "x"),
    ("a\x1b", "a", "a"),
    ("a\x1b[31", "a", "a"),
    ("\x1b[31é", "é", "é"),
    ("\x1b[\x1b[31mred", "\x1b[31mred\x1b[0m", "red"),
];

#[test]
fn colours_pass_and_nothing_else() {
    for (line, kept, dropped) in TABLE {
        assert_eq!(clean(line, Colours::Keep), *kept, "{line:?}");
        assert_eq!(clean(line, Colours::Drop), *dropped, "{line:?}");
    }
}

#[test]
fn what_is_clean_stays_as_it_is() {
    for (_, kept, dropped) in TABLE {
        assert_eq!(clean(kept, Colours::Keep), *kept);
        assert_eq!(clean(dropped, Colours::Drop), *dropped);
    }
}
