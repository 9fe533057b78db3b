//! Which network a step has. Servers are this test's, on this machine; pasta is Debian's, or a script in its place.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

/// Greets whoever connects; returns its port.
fn greeter(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who went away again does not want it.
            _ = stream.expect("a connection").write_all(b"hello\n");
        }
    });
    port
}

/// A directory to be PATH, in which pasta is this script, or is not. What kiln and its user need is there.
fn tools(place: &Place, pasta: Option<&str>) -> String {
    place.directory("tools");
    for name in ["newuidmap", "newgidmap", "setpriv"] {
        place.link(&format!("tools/{name}"), &format!("/usr/bin/{name}"));
    }
    if let Some(script) = pasta {
        place.mode("tools/pasta", &format!("#!/bin/sh\n{script}\n"), 0o755);
    }
    place.text("tools")
}

fn build(place: &Place, path: &str, args: &[&str]) -> Ran {
    Ran::of(place.build_command("store", args).env("PATH", path))
}

/// Whether the user can have a private network here.
fn has_private(user: User) -> bool {
    let tun = user.command("/usr/bin/test").args(["-w", "/dev/net/tun"]).status().expect("test");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    let routed = socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).is_ok();
    kiln_testkit::tools::tool("pasta").is_some() && tun.success() && routed
}

#[test]
fn a_private_network_reaches_the_machine_but_not_its_loopback() {
    for_each_user(|user| {
        if !has_private(user) {
            return;
        }
        let (own, open) = (greeter(Ipv4Addr::LOCALHOST), greeter(Ipv4Addr::UNSPECIFIED));
        // What nc reads stays open: Debian 12's pasta loses the end of a connection that both sides close at once.
        let place = Place::with(
            user,
            &format!(
                "RUN test \"$(ls /sys/class/net | wc -l)\" = 2 && mkfifo open\n\
                 RUN ! busybox nc -w 9 127.0.0.1 {own}\n\
                 RUN busybox nc -w 9 machine {open} <>open | grep hello\n\
                 RUN ! grep nameserver.127 /etc/resolv.conf\n"
            ),
        );
        let flags = ["--network=private", "--add-host=machine:host-gateway"];
        place.build(&flags).ok().prints(&["hello"]);
        place.is_quiet();
        // The key does not tell by which way.
        let host = ["--network=host", "--add-host=machine:host-gateway"];
        assert_eq!(place.build(&host).ok().count("CACHED"), 5);
        let script = format!("! busybox nc -w 9 127.0.0.1 {own}");
        place.build(&[&flags[..], &["-t", "a"]].concat()).ok();
        place.kiln(&["run", "--network=private", "a", "/bin/sh", "-c", &script]).ok();
    });
}

#[test]
fn the_hosts_network_is_the_default_without_pasta() {
    for_each_user(|user| {
        let own = greeter(Ipv4Addr::LOCALHOST);
        let place =
            Place::with(user, &format!("RUN busybox nc -w 9 machine {own} </dev/null | grep hello\n"));
        let path = tools(&place, None);
        let flags = ["--network=default", "--add-host=machine:host-gateway"];
        build(&place, &path, &flags).ok().prints(&["hello"]).lacks(&["WARNING"]);
        build(&place, &path, &["--network=private", "--no-cache"])
            .code(3)
            .says(&["a private network needs pasta", "Debian package passt"]);
    });
}

#[test]
fn a_pasta_that_does_not_work_is_told_of_and_done_without() {
    for_each_user(|user| {
        let own = greeter(Ipv4Addr::LOCALHOST);
        let place =
            Place::with(user, &format!("RUN busybox nc -w 9 127.0.0.1 {own} </dev/null | grep hello\n"));
        let path = tools(&place, Some("echo no luck today >&2; exit 1"));
        build(&place, &path, &["--network=default"]).ok().prints(&["hello"]).says(&[
            "WARNING",
            "this machine's network",
            "no luck today",
        ]);
        build(&place, &path, &["--network=private", "--no-cache"])
            .code(3)
            .says(&["pasta cannot give steps a private network: no luck today"]);
    });
}

#[test]
fn a_proxy_on_loopback_keeps_the_hosts_network() {
    for_each_user(|user| {
        let own = greeter(Ipv4Addr::LOCALHOST);
        let place =
            Place::with(user, &format!("RUN busybox nc -w 9 127.0.0.1 {own} </dev/null | grep hello\n"));
        let path = tools(&place, Some("echo $$; exec /bin/sleep 1000"));
        let proxy = "--build-arg=http_proxy=http://127.0.0.1:3128";
        build(&place, &path, &["--network=default", proxy]).ok().prints(&["hello"]).says(&[
            "WARNING",
            "HTTP_PROXY",
            "listens on its loopback",
        ]);
    });
}

/// A pasta that serves nothing and does not end by itself; its process id is in a file.
const LASTING: &str = "echo $$ >${0%/*}/pid; echo $$; exec /bin/sleep 1000";

fn pasta_of(place: &Place) -> rustix::fd::OwnedFd {
    let pid = place.read("tools/pid").trim().parse().ok().and_then(rustix::process::Pid::from_raw);
    let flags = rustix::process::PidfdFlags::empty();
    rustix::process::pidfd_open(pid.expect("a process id"), flags).expect("it is there")
}

/// Waits for a process to end.
fn ends(pidfd: &rustix::fd::OwnedFd) {
    let mut wanted = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut wanted, None), Ok(1));
}

#[test]
fn pasta_ends_with_kiln_even_if_that_is_killed() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN mkfifo f && echo begun && cat f\n");
        let path = tools(&place, Some(LASTING));
        let mut running = place.start_with(&["--network=private"], &[("PATH", &path)]);
        assert!(running.until(" begun\n"), "{}", running.seen);
        let pasta = pasta_of(&place);
        running.signal(rustix::process::Signal::KILL);
        running.wait();
        ends(&pasta);
    });
}

#[test]
fn a_step_that_fails_as_pasta_has_ended_fails_for_that() {
    for_each_user(|user| {
        // Whatever is in the fifo ends it.
        let place =
            Place::with(user, "RUN --mount=type=bind,target=/fifos,source=fifos cat /fifos/go; false\n");
        place.directory("context/fifos");
        let made = user.command("mkfifo").arg(place.path("context/fifos/go")).status().expect("mkfifo");
        assert!(made.success());
        let path = tools(&place, Some(LASTING));
        let running = place.start_with(&["--network=private"], &[("PATH", &path)]);
        // Opening waits for the step to read.
        let go =
            std::fs::OpenOptions::new().write(true).open(place.path("context/fifos/go")).expect("a fifo");
        let pasta = pasta_of(&place);
        let pid = place.read("tools/pid");
        assert!(Command::new("kill").args(["-9", pid.trim()]).status().expect("kill").success());
        ends(&pasta);
        drop(go);
        running.wait().code(3).says(&["pasta cannot give steps a private network", "it ended"]);
    });
}

#[test]
fn names_are_looked_up_as_asked_for() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN grep -v '^#' /etc/resolv.conf\n");
        let flags =
            ["--dns=192.0.2.7", "--dns-search=a.example", "--dns-search=b.example", "--dns-opt=timeout:1"];
        place.build(&flags).ok().prints(&[
            "nameserver 192.0.2.7",
            "search a.example b.example",
            "options timeout:1",
        ]);
        // They say how the result was come by, not what it is.
        assert_eq!(place.build(&["--dns=192.0.2.8"]).ok().count("CACHED"), 2);
        place.build(&["--dns=here"]).code(2).says(&["--dns"]);
        place.build(&["--dns-search=a b"]).code(2).says(&["write one word"]);
        let other = IpAddr::from([192, 0, 2, 9]);
        place.build(&["-t", "a"]).ok();
        let ran = place.kiln(&["run", &format!("--dns={other}"), "a", "cat", "/etc/resolv.conf"]).ok();
        assert!(ran.out().contains("nameserver 192.0.2.9\n"), "{ran}");
    });
}
