//! Values of single instructions: what is taken, and what it becomes.

use kiln_core::{Chmod, CopyOp, CopySource, Op};
use kiln_dockerfile::parse;
use kiln_frontend::{BuildPlan, LowerOptions, lower_offline};

#[test]
fn modes() {
    let symbolic = ["u=rwX,go=rX", "+x", "a-w", "ug+rw,o=", "u=g", "u+x-w", "go-rwx,u+s,+t", "="];
    for text in symbolic {
        assert_eq!(copy(&format!("COPY --chmod={text} a /a")).chmod, Some(Chmod::Symbolic(text.to_owned())));
    }
    for (text, mode) in [("0", 0), ("644", 0o644), ("0755", 0o755), ("07777", 0o7777), ("00644", 0o644)] {
        assert_eq!(copy(&format!("COPY --chmod={text} a /a")).chmod, Some(Chmod::Octal(mode)), "{text}");
    }
    for text in ["8", "10000", "u", "rwx", "u=rwx,", "x=r", "u+gx", "0o755"] {
        assert!(refusal(&format!("COPY --chmod={text} a /a")).contains("--chmod"), "{text}");
    }
}

#[test]
fn sources_and_destinations() {
    let rows = [
        ("a /b", "a", "/b", false),
        ("/a /b/", "a", "/b", true),
        ("../../a/ b", "a", "/w/b", false),
        ("a/../b/./c .", "b/c", "/w", true),
        ("a ./", "a", "/w", true),
        ("a ../x/.", "a", "/x", true),
        ("a ..", "a", "/", false),
        (". /", "", "/", true),
        ("a $UNSET", "a", "/w", true),
        ("$DIR/x $DIR", "d e/x", "/d e", false),
    ];
    for (words, path, dest, is_dir) in rows {
        let op = copy(&format!("ENV DIR=\"/d e\"\nCOPY {words}"));
        let CopySource::From(from) = &op.sources[0] else { panic!("{words}") };
        assert_eq!(
            (from.selection.path.as_str(), op.dest.as_str(), op.dest_is_dir),
            (path, dest, is_dir),
            "{words}"
        );
    }
    for (path, wildcard) in [("a*", true), ("a?", true), ("a[b]", true), ("a", false), ("a b", false)] {
        let CopySource::From(from) = &copy(&format!("COPY [\"{path}\", \"/x/\"]")).sources[0] else {
            panic!("{path}")
        };
        assert_eq!(from.selection.wildcard, wildcard, "{path}");
    }
    assert!(refusal("COPY a[ /x/").contains("pattern"));
    assert!(refusal("COPY a b /x").contains("must be a directory"));
    assert!(refusal("COPY <<a b /x\na\n").contains("must be a directory"));
}

#[test]
fn owners_are_kept_as_written() {
    assert_eq!(copy("COPY --chown=7 a /a").chown.as_deref(), Some("7"));
    assert_eq!(copy("ENV U=app\nCOPY --chown=$U:staff a /a").chown.as_deref(), Some("app:staff"));
    assert_eq!(copy("COPY --chown=$UNSET a /a").chown, None);
}

#[test]
fn signals() {
    for signal in ["SIGTERM", "sigterm", "TERM", "9", "64", "SIGRTMIN", "SIGRTMIN+15", "RTMAX-14", "SIGUSR1"]
    {
        let stop = plan(&format!("STOPSIGNAL {signal}")).images[0].config.config.stop_signal.clone();
        assert_eq!(stop.as_deref(), Some(signal));
    }
    for signal in ["0", "65", "-1", "SIG", "SIGFOO", "SIGRTMIN+16", "RTMAX-15", "SIGRTMIN+0", "$UNSET"] {
        assert!(refusal(&format!("STOPSIGNAL {signal}")).contains("not a signal"), "{signal}");
    }
}

#[test]
fn ports() {
    let rows: [(&str, &[&str]); 6] = [
        ("80", &["80/tcp"]),
        ("80/UDP 53/tcp", &["53/tcp", "80/udp"]),
        ("8000-8002/sctp", &["8000/sctp", "8001/sctp", "8002/sctp"]),
        ("$PORTS", &["1/tcp", "2/udp"]),
        ("1.2.3.4:80:81", &["81/tcp"]),
        ("80:81-82", &["81/tcp", "82/tcp"]),
    ];
    for (words, wanted) in rows {
        let plan = plan(&format!("ENV PORTS=\"1 2/udp\"\nEXPOSE {words}"));
        let ports: Vec<&str> =
            plan.images[0].config.config.exposed_ports.iter().map(String::as_str).collect();
        assert_eq!(ports, wanted, "{words}");
    }
    for words in ["x", "65536", "80/icmp", "9-8", "1-2-3", "+1", "80:", "x:80", "1-", "-1"] {
        assert!(refusal(&format!("EXPOSE {words}")).contains("is not a port"), "{words}");
    }
}

#[test]
fn stages_upon_stages_need_no_stack() {
    let chain: String = (0..5_000).map(|i| format!("FROM s{i} AS s{}\n", i + 1)).collect();
    let (file, _) = parse(&format!("FROM a AS s0\nENV X=1\n{chain}"));
    let work = move || lower_offline(&file, &LowerOptions::default()).expect("a plan");
    let plan = std::thread::Builder::new().stack_size(128 << 10).spawn(work).unwrap().join().unwrap();
    assert_eq!((plan.graph.len(), plan.images[0].history.len()), (1, 1));
}

#[test]
fn an_add_in_many_parts_does_not_say_all_of_itself_in_each() {
    let sources: String = (0..1000).map(|n| format!("f{n} https://e.org/{n} ")).collect();
    let plan = plan(&format!("ADD {sources} /x/"));
    let copies = plan.graph.iter().filter(|(_, step)| matches!(step.op, Op::Copy(_)));
    let said: Vec<usize> = copies.map(|(_, step)| step.info.title.len()).collect();
    assert_eq!(said.len(), 2000);
    assert!(said.iter().sum::<usize>() < 10 * sources.len(), "{}", said.iter().sum::<usize>());
}

#[test]
fn what_is_a_path_and_what_is_fetched() {
    let paths = [
        "./a:b",
        "./x.git",
        "../x.git",
        "github.com/a/b",
        "http:/a",
        "ftp://e.org/a",
        "httpx://a",
        "a@b",
        "x.git",
    ];
    for path in paths {
        assert!(copy(&format!("COPY {path} /x")).sources.len() == 1, "{path}");
        let CopySource::From(from) = &copy(&format!("ADD {path} /x")).sources[0] else { panic!("{path}") };
        assert!(!from.selection.path.is_empty(), "{path}");
    }
    for fetched in
        ["git@e.org:a/b", "git://e.org/a", "ssh://e.org/a", "https://e.org/a.git", "http://e.org/a"]
    {
        assert!(refusal(&format!("COPY {fetched} /x")).starts_with("COPY takes no "), "{fetched}");
        let plan = plan(&format!("ADD {fetched} /x"));
        assert!(plan.graph.iter().any(|(_, step)| matches!(step.op, Op::Http(_) | Op::Git(_))), "{fetched}");
    }
}

#[test]
fn names_of_files_behind_urls() {
    let rows = [
        ("https://e.org/a", "a"),
        ("https://e.org/d/a.tar.gz?x=/y#z/w", "a.tar.gz"),
        ("https://e.org/d/", "d"),
        ("https://e.org/a%20b", "a b"),
        ("https://e.org/a%2Fb", "b"),
        ("http://e.org:80", "__unnamed__"),
        ("https://e.org/?file=a", "__unnamed__"),
        ("https://e.org/..", "__unnamed__"),
        ("https://e.org/%2e%2e", "__unnamed__"),
        ("https://e.org/%00", "__unnamed__"),
        ("https://e.org/%zz", "__unnamed__"),
        ("https://e.org/%ff", "__unnamed__"),
        ("https://e.org/%+1a", "__unnamed__"),
    ];
    for (url, wanted) in rows {
        let plan = plan(&format!("ADD {url} /x"));
        let mut names = plan.graph.iter().filter_map(|(_, step)| match &step.op {
            Op::Http(op) => Some(op.name.clone()),
            _ => None,
        });
        assert_eq!(names.next().as_deref(), Some(wanted), "{url}");
    }
}

#[test]
fn working_directories() {
    let rows = [
        ("/a/b/../c/", "/a/c"),
        ("x", "/w/x"),
        ("..", "/"),
        ("../../..", "/"),
        ("$UNSET", "/w"),
        ("\"q r\"", "/w/q r"),
    ];
    for (words, wanted) in rows {
        assert_eq!(plan(&format!("WORKDIR {words}")).images[0].config.config.working_dir, wanted, "{words}");
    }
}

fn plan(lines: &str) -> BuildPlan {
    lowered(lines).unwrap_or_else(|errors| panic!("{lines}: {errors}"))
}

fn copy(lines: &str) -> CopyOp {
    let plan = plan(lines);
    let copies = plan.graph.iter().filter_map(|(_, step)| match &step.op {
        Op::Copy(op) => Some(op.clone()),
        _ => None,
    });
    copies.last().expect("a COPY")
}

fn refusal(lines: &str) -> String {
    match lowered(lines) {
        Ok(_) => panic!("{lines} is taken"),
        Err(message) => message,
    }
}

fn lowered(lines: &str) -> Result<BuildPlan, String> {
    let (file, found) = parse(&format!("FROM scratch\nWORKDIR /w\n{lines}\n"));
    assert!(found.iter().all(|one| one.severity != kiln_dockerfile::Severity::Error), "{lines}: {found:?}");
    lower_offline(&file, &LowerOptions::default()).map_err(|errors| errors[0].message.clone())
}
