use super::*;

const MACHINE: &str = "# by hand\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\nsearch example.org\n\
                       options edns0\n";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_machines_resolver_is_the_steps() {
    for mode in [NetworkMode::Host, NetworkMode::None] {
        assert_eq!(resolv_conf(MACHINE, mode, None, &Resolver::default()), MACHINE);
    }
}

#[test]
fn one_that_listens_on_loopback_is_forwarded_to() {
    let made = resolv_conf(MACHINE, NetworkMode::Private, None, &Resolver::default());
    let wanted = "# by hand\nnameserver 10.0.2.3\nnameserver 192.0.2.1\nsearch example.org\noptions edns0\n";
    assert_eq!(made, wanted);
}

#[test]
fn the_one_that_queries_are_passed_on_to_is_asked_through_the_forwarder_only() {
    let machine = "nameserver 192.0.2.1\nnameserver 192.0.2.2\n";
    let made = resolv_conf(machine, NetworkMode::Private, None, &Resolver::default());
    assert_eq!(made, "nameserver 10.0.2.3\nnameserver 192.0.2.2\n");
    let resolver = Resolver { servers: words(&["192.0.2.1"]), ..Resolver::default() };
    assert_eq!(resolv_conf(machine, NetworkMode::Private, None, &resolver), "nameserver 10.0.2.3\n");
    assert_eq!(resolv_conf(machine, NetworkMode::Host, None, &resolver), "nameserver 192.0.2.1\n");
}

#[test]
fn what_is_asked_for_replaces_its_own_kind_only() {
    let resolver = Resolver {
        servers: words(&["192.0.2.7", "127.0.0.1"]),
        search: words(&["a.example", "b.example"]),
        options: Vec::new(),
    };
    let made = resolv_conf(MACHINE, NetworkMode::Private, None, &resolver);
    let wanted =
        "# by hand\noptions edns0\nnameserver 192.0.2.7\nnameserver 127.0.0.1\nsearch a.example b.example\n";
    assert_eq!(made, wanted);
}

#[test]
fn the_machine_has_another_address_in_each_network() {
    let row = |address: &str, name: &str| (address.to_owned(), name.to_owned());
    let asked = [row("host-gateway", "host"), row("192.0.2.9", "db")];
    let host = Some(IpAddr::from([198, 51, 100, 4]));
    assert_eq!(hosts(&asked, NetworkMode::Host, None)[0], row("127.0.0.1", "host"));
    assert_eq!(hosts(&asked, NetworkMode::Private, host)[0], row("198.51.100.4", "host"));
    assert_eq!(hosts(&asked, NetworkMode::None, host), [row("192.0.2.9", "db")]);
}

#[test]
fn the_private_network_is_not_the_machines() {
    assert_eq!(forwarder(None), Ipv4Addr::new(10, 0, 2, 3));
    assert_eq!(forwarder(Some(IpAddr::from([10, 0, 2, 15]))), Ipv4Addr::new(10, 0, 3, 3));
}
