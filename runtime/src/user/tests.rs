use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/sh\nnohome:x:7:8::\nbroken\n12:x:500:501::/odd:\n";
const GROUP: &str = "root:x:0:\nann:x:1001:\nwheel:x:10:root,ann\naudio:x:29:ann\nempty:x:30\n";

#[test]
fn users_are_looked_up() {
    let user = |uid, gid, groups: &[u32], home: &str| User {
        uid,
        gid,
        groups: groups.to_vec(),
        home: home.to_owned(),
    };
    for (wanted, expected) in [
        ("", user(0, 0, &[10], "/root")),
        ("0", user(0, 0, &[10], "/root")),
        ("root", user(0, 0, &[10], "/root")),
        ("ann", user(1000, 1001, &[10, 29], "/home/ann")),
        ("1000", user(1000, 1001, &[10, 29], "/home/ann")),
        ("ann:audio", user(1000, 29, &[], "/home/ann")),
        ("ann:77", user(1000, 77, &[], "/home/ann")),
        ("ann:", user(1000, 1001, &[10, 29], "/home/ann")),
        (":29", user(0, 29, &[], "/root")),
        ("4242", user(4242, 0, &[], "/")),
        ("4242:4343", user(4242, 4343, &[], "/")),
        ("nohome", user(7, 8, &[], "/")),
        ("12", user(500, 501, &[], "/odd")),
    ] {
        assert_eq!(look_up(wanted, PASSWD, GROUP), Ok(expected), "{wanted}");
    }
    assert_eq!(look_up("", "", ""), Ok(user(0, 0, &[], "/")));
}

#[test]
fn unknown_names_and_absurd_numbers_are_refused() {
    for wanted in ["eve", "broken", "-1", "+1", "2147483648", "99999999999"] {
        assert_eq!(
            look_up(wanted, PASSWD, GROUP),
            Err(UserError::UnknownUser { name: wanted.to_owned() }),
            "{wanted}"
        );
    }
    assert_eq!(look_up("ann:nope", PASSWD, GROUP), Err(UserError::UnknownGroup { name: "nope".to_owned() }));
}

#[test]
fn rungs_without_the_id_refuse_it() {
    let ids = crate::ids::map_of(1000, &[(100_000, 65_536)]);
    let subordinate = IdMode::Subordinate { uids: ids.clone(), gids: ids };
    for (wanted, mode, refused) in [
        ("ann", &IdMode::Root, false),
        ("ann", &IdMode::Single, true),
        ("root", &IdMode::Single, false),
        ("0:5", &IdMode::Single, true),
        ("65536", &subordinate, false),
        ("65537", &subordinate, true),
        ("0:65537", &subordinate, true),
    ] {
        let user = look_up(wanted, PASSWD, GROUP).unwrap();
        assert_eq!(check(&user, wanted, mode).is_err(), refused, "{wanted} {mode:?}");
    }
}
