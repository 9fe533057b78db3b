use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_core::{Cancel, Digest, Event, EventSink, HttpOp, Op, Secret, Selection, StepOutcome};
use kiln_registry::DownloadError;
use kiln_store::{Ids, PruneOptions, Store};
use kiln_testkit::registry::{FakeRegistry, Fault, WebFile};

use super::Remotes;
use crate::engine::reporter::Reporter;
use crate::{BuildRequest, Error, ErrorKind};

mod repository;

const DATE: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

/// A store, a server, and what a build would say.
struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    server: FakeRegistry,
    secrets: Vec<(&'static str, &'static str)>,
}

#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl EventSink for Log {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// What one build saw.
struct Seen {
    result: Result<Digest, Error>,
    /// Requests with their conditions.
    asked: Vec<String>,
    events: Vec<Event>,
    /// How often it was said that something is fetched.
    late: usize,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Ids::Full).unwrap();
        Self { _dir: dir, store, server: FakeRegistry::start(), secrets: Vec::new() }
    }

    fn op(&self, path: &str, checksum: Option<&[u8]>) -> Op {
        let name = path.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
        Op::Http(HttpOp { url: self.server.url(path), name, checksum: checksum.map(Digest::of) })
    }

    fn request(&self) -> BuildRequest {
        let mut request = BuildRequest::new(self.store.root(), "/nowhere");
        for (id, value) in &self.secrets {
            request.secrets.insert((*id).to_owned(), Secret::new(value.as_bytes().to_vec()).unwrap());
        }
        request
    }

    /// One build that asks for digests alone.
    fn digest(&self, op: &Op) -> Seen {
        self.build(|remotes, late| remotes.digest(op, &Selection::all(), late, &Cancel::new()))
    }

    fn build(&self, work: impl FnOnce(&Remotes<'_>, &dyn Fn()) -> Result<Digest, Error>) -> Seen {
        let (log, late) = (Log::default(), AtomicUsize::new(0));
        let reporter = Reporter::new(&log);
        self.server.seen();
        let _pin = self.store.pin().unwrap();
        let request = self.request();
        let remotes = Remotes::new(&self.store, &request, &reporter);
        let result = work(&remotes, &|| {
            late.fetch_add(1, Ordering::SeqCst);
        });
        let asked =
            self.server.seen().into_iter().map(|seen| [vec![seen.line], seen.conditions].concat().join(" "));
        Seen { result, asked: asked.collect(), events: log.0.into_inner().unwrap(), late: late.into_inner() }
    }

    fn read(&self, op: &Op) -> String {
        let mut text = String::new();
        self.build(|remotes, _| {
            let remote = remotes.get(op, &Cancel::new())?;
            let Op::Http(op) = op else { panic!("{op:?}") };
            text = std::fs::read_to_string(remote.path.join(&op.name)).unwrap();
            Ok(remote.content)
        });
        text
    }
}

impl Seen {
    /// The events in short.
    fn told(&self) -> Vec<String> {
        let short = |event: &Event| match event {
            Event::StepDeclared { title, .. } => format!("declared {title}"),
            Event::StepStarted { .. } => "started".to_owned(),
            Event::StepCached { .. } => "cached".to_owned(),
            Event::StepProgress { item, current, total, .. } => format!("{item} {current} of {total:?}"),
            Event::StepFinished { outcome: StepOutcome::Done, .. } => "done".to_owned(),
            Event::StepFinished { outcome: StepOutcome::Failed { message }, .. } => {
                format!("failed: {message}")
            }
            Event::StepFinished { outcome: StepOutcome::Cancelled, .. } => "cancelled".to_owned(),
            other => format!("{other:?}"),
        };
        self.events.iter().map(short).collect()
    }
}

/// All bytes below a directory.
fn everything(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
        bytes.extend(if path.is_dir() { everything(&path) } else { std::fs::read(&path).unwrap() });
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_second_build_asks_and_fetches_nothing() {
    let bench = Bench::new();
    bench.server.put_file("/a/b.txt", WebFile::new("one").etag("\"1\"").last_modified(DATE));
    let (op, title) = (bench.op("/a/b.txt", None), bench.server.url("/a/b.txt"));
    let first = bench.digest(&op);
    assert_eq!(first.asked, ["GET /a/b.txt"]);
    let told = [
        format!("declared {title}"),
        "started".into(),
        "b.txt 0 of Some(3)".into(),
        "b.txt 3 of Some(3)".into(),
        "done".into(),
    ];
    assert_eq!((first.told(), first.late), (told.to_vec(), 1));
    let second = bench.digest(&op);
    assert_eq!(second.asked, [format!("GET /a/b.txt if-modified-since: {DATE} if-none-match: \"1\"")]);
    assert_eq!((second.told(), second.late), (vec![format!("declared {title}"), "cached".into()], 0));
    assert_eq!(first.result.unwrap(), *second.result.as_ref().unwrap());
    // Other bytes are another digest.
    bench.server.put_file("/a/b.txt", WebFile::new("two").etag("\"2\""));
    let third = bench.digest(&op);
    assert!(third.result.unwrap() != second.result.unwrap() && third.late == 1);
    assert_eq!(bench.read(&op), "two");
    assert_eq!(bench.store.fsck().unwrap(), []);
}

#[test]
fn with_a_checksum_and_the_file_nobody_is_asked() {
    let bench = Bench::new();
    bench.server.put_file("/b.txt", WebFile::new("one"));
    let op = bench.op("/b.txt", Some(b"one"));
    // The digest is known before there is a file: whoever has a record needs none.
    let early = bench.digest(&op);
    assert_eq!((early.asked, early.late), (vec![], 0));
    assert_eq!(bench.read(&op), "one");
    let again = bench.build(|remotes, _| {
        remotes.get(&op, &Cancel::new())?;
        remotes.digest(&op, &Selection::all(), &|| (), &Cancel::new())
    });
    assert_eq!(again.asked, [] as [String; 0]);
    assert_eq!(again.told().last().unwrap(), "cached");
    assert_eq!(again.result.unwrap(), early.result.unwrap());
    // What is named by its checksum is the same wherever it comes from, and with none it is worth the same.
    bench.server.put_file("/mirror/b.txt", WebFile::new("one"));
    let mirror = bench.build(|remotes, _| {
        Ok(remotes.get(&bench.op("/mirror/b.txt", Some(b"one")), &Cancel::new())?.content)
    });
    assert_eq!(mirror.asked, [] as [String; 0]);
    let plain = bench.build(|remotes, _| Ok(remotes.get(&bench.op("/b.txt", None), &Cancel::new())?.content));
    assert_eq!(plain.result.unwrap(), mirror.result.unwrap());
}

#[test]
fn other_bytes_than_the_checksum_says_are_refused_and_not_kept() {
    let bench = Bench::new();
    bench.server.put_file("/b.txt", WebFile::new("two").etag("\"1\""));
    let op = bench.op("/b.txt?key=s3cr3t", Some(b"one"));
    let seen = bench.build(|remotes, _| Ok(remotes.get(&op, &Cancel::new())?.content));
    let (url, one, two) = (bench.server.url("/b.txt"), Digest::of(b"one"), Digest::of(b"two"));
    let message = format!("{url}?... has checksum {two}, not {one}");
    assert_eq!(seen.told().last().unwrap(), &format!("failed: {message}"));
    let error = seen.result.unwrap_err();
    assert_eq!((error.to_string(), error.kind()), (message, ErrorKind::Network));
    assert!(!bench.store.root().join("sources").exists());
    // And is not believed later, because its tag is known.
    bench.server.put_file("/b.txt", WebFile::new("one").etag("\"1\""));
    assert_eq!(bench.read(&op), "one");
    assert_eq!(bench.store.fsck().unwrap(), []);
}

#[test]
fn a_source_that_was_pruned_is_fetched_whole() {
    let bench = Bench::new();
    bench.server.put_file("/b.txt", WebFile::new("one").etag("\"1\""));
    let op = bench.op("/b.txt", None);
    bench.digest(&op).result.unwrap();
    bench.store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(bench.digest(&op).late, 0, "a record needs it");
    bench.store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    let seen = bench.digest(&op);
    assert_eq!((seen.asked, seen.late), (vec!["GET /b.txt".to_owned()], 1));
    // Gone alone, as after a power failure.
    std::fs::remove_dir_all(bench.store.root().join("sources")).unwrap();
    assert_eq!(bench.digest(&op).asked, ["GET /b.txt"]);
}

#[test]
fn whoever_asks_first_fetches_for_all() {
    let bench = Bench::new();
    bench.server.put_file("/b.txt", WebFile::new(vec![b'x'; 3 << 20]).etag("\"1\""));
    let op = bench.op("/b.txt", None);
    let seen = bench.build(|remotes, late| {
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            let ask = || remotes.digest(&op, &Selection::literal("b.txt"), &|| (), &cancel);
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            let digests: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
            assert!(digests.iter().all(|digest| *digest == digests[0]));
        });
        remotes.digest(&op, &Selection::all(), late, &cancel)
    });
    assert_eq!(seen.asked, ["GET /b.txt"]);
    // Two processes: the second one waits, and asks.
    let bench = Bench::new();
    bench.server.put_file("/b.txt", WebFile::new(vec![b'x'; 3 << 20]).etag("\"1\""));
    let op = bench.op("/b.txt", None);
    bench.build(|first, _| {
        let (log, cancel) = (Log::default(), Cancel::new());
        let reporter = Reporter::new(&log);
        let request = bench.request();
        let second = Remotes::new(&bench.store, &request, &reporter);
        std::thread::scope(|scope| {
            let threads =
                [first, &second].map(|remotes| scope.spawn(|| remotes.get(&op, &cancel).unwrap().content));
            let [one, two] = threads.map(|thread| thread.join().unwrap());
            assert_eq!(one, two);
        });
        let conditions: Vec<_> = bench.server.seen().into_iter().map(|seen| seen.conditions).collect();
        assert_eq!(conditions, [vec![], vec!["if-none-match: \"1\"".to_owned()]]);
        Ok(Digest::of(b""))
    });
}

#[test]
fn a_secret_is_sent_and_is_nowhere_else() {
    let mut bench = Bench::new();
    bench.server.put_file("/b.txt", WebFile::new("one").etag("\"1\"").for_whom("Bearer s3cr3t"));
    let op = bench.op("/b.txt?sig=s1gn3d", None);
    let denied = bench.digest(&op);
    let told = denied.told();
    let error = denied.result.unwrap_err();
    assert!(
        matches!(&error, Error::Download(DownloadError::Denied { host, .. }) if host == "127.0.0.1"),
        "{error}"
    );
    bench.secrets = vec![("HTTP_AUTH_TOKEN_127.0.0.1", "s3cr3t\n"), ("unrelated", "0th3r")];
    let seen = bench.digest(&op);
    seen.result.as_ref().unwrap();
    let store = everything(bench.store.root());
    let shown = format!("{:?} {told:?} {error} {error:?}", seen.events);
    for secret in ["s3cr3t", "s1gn3d", "0th3r"] {
        assert!(!holds(&store, secret), "{secret} is in the store");
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(holds(&store, "b.txt"), "the store was looked through");
}

#[test]
fn an_interrupt_leaves_nothing_half_made() {
    let bench = Bench::new();
    bench.server.put_file("/b.txt", WebFile::new("one"));
    bench.server.fault("/b.txt", 1, Fault::Endless);
    let cancel = Cancel::new();
    let seen = bench.build(|remotes, _| {
        remotes.digest(&bench.op("/b.txt", None), &Selection::all(), &|| cancel.cancel(), &cancel)
    });
    assert_eq!(seen.told().last().unwrap(), "cancelled");
    assert_eq!(seen.result.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(!bench.store.root().join("sources").exists());
    let half_made = std::fs::read_dir(bench.store.root().join("tmp")).unwrap();
    let half_made: Vec<_> =
        half_made.flat_map(|own| std::fs::read_dir(own.unwrap().path()).unwrap()).collect();
    assert!(half_made.is_empty(), "{half_made:?}");
    assert_eq!(bench.read(&bench.op("/b.txt", None)), "one");
}

#[test]
fn what_is_selected_and_what_it_is_called_decide() {
    let bench = Bench::new();
    bench.server.put_file("/one", WebFile::new("same"));
    bench.server.put_file("/two", WebFile::new("same"));
    bench.server.put_file("/x/one", WebFile::new("same"));
    let of = |path: &str, selection: &Selection| {
        let op = bench.op(path, None);
        bench.build(|remotes, late| remotes.digest(&op, selection, late, &Cancel::new())).result.unwrap()
    };
    let all = Selection::all();
    assert_eq!(of("/one", &all), of("/x/one", &all), "not where it comes from");
    assert_ne!(of("/one", &all), of("/two", &all), "its name");
    assert_ne!(of("/one", &all), of("/one", &Selection::literal("one")), "what of it");
}
