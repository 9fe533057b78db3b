//! Cache mounts with real locks, between threads and between processes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;

use kiln_core::{CacheScope, Cancel, IoError, Sharing};
use kiln_store::Ids;
use kiln_store::cache_mount::{CacheError, CacheMounts, CacheRequest, Held};

fn request(id: &str, sharing: Sharing) -> CacheRequest {
    CacheRequest {
        id: id.to_owned(),
        scope: CacheScope::Global,
        sharing,
        mode: 0o755,
        uid: 0,
        gid: 0,
        read_only: false,
        target: format!("/cache/{id}"),
    }
}

/// Whoever runs the tests can record any owner.
fn caches(dir: &Path) -> CacheMounts {
    CacheMounts::new(dir.join("caches"), Ids::Single)
}

fn no_seed(_: &CacheRequest) -> Result<Option<OwnedFd>, IoError> {
    Ok(None)
}

/// Acquires what must not have to wait.
fn take(caches: &CacheMounts, requests: &[CacheRequest], step: &str) -> Held {
    let mut waits = |request: &CacheRequest, holder: &str| panic!("{} waits for {holder}", request.id);
    caches.acquire(requests, step, &mut waits, &no_seed, &Cancel::new()).unwrap()
}

fn take_one(caches: &CacheMounts, id: &str, sharing: Sharing) -> (Held, PathBuf) {
    let held = take(caches, &[request(id, sharing)], "a test");
    let path = held.caches()[0].path.clone();
    (held, path)
}

/// What happens to a step that wants a cache: `goes on`, `waits for ...`, `gets a copy of ...`.
fn outcome(caches: &CacheMounts, sharing: Sharing) -> String {
    let cancel = Cancel::new();
    let mut waited_for = None;
    let mut on_wait = |_: &CacheRequest, holder: &str| {
        waited_for = Some(holder.to_owned());
        cancel.cancel();
    };
    match caches.acquire(&[request("x", sharing)], "the second", &mut on_wait, &no_seed, &cancel) {
        Err(CacheError::Cancelled) => format!("waits for {}", waited_for.unwrap()),
        Err(error) => panic!("{error}"),
        Ok(held) => {
            let cache = &held.caches()[0];
            if cache.path.ends_with("data") {
                assert!(!cache.thrown_away);
                return "goes on".to_owned();
            }
            let state = fs::read_to_string(cache.path.join("state")).unwrap();
            format!("gets a copy of {state}{}", if cache.thrown_away { ", thrown away" } else { "" })
        }
    }
}

/// A process that holds a cache until it is told to give it back.
struct Holder {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    /// Where the holder works.
    path: PathBuf,
}

impl Holder {
    fn start(dir: &Path, id: &str, sharing: Sharing) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holder_process", "--nocapture"])
            .env("KILN_TEST_HOLD", dir)
            .env("KILN_TEST_ID", id)
            .env("KILN_TEST_SHARING", serde_json::to_string(&sharing).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut holder = Self { child, out, path: PathBuf::new() };
        holder.path = PathBuf::from(holder.line("held "));
        holder
    }

    /// Waits for a line that begins so, and returns the rest.
    fn line(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "the holder ended without {start:?}");
            // The test harness prints on the same line before the test does.
            if let Some(at) = line.find(start) {
                return line[at + start.len()..].trim_end().to_owned();
            }
        }
    }

    /// Makes it give the cache back, without waiting for it.
    fn tell(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    fn release(mut self, ok: bool) {
        self.tell(if ok { "ok" } else { "fail" });
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn name(&self) -> String {
        format!("process {}", self.child.id())
    }
}

/// Not a test: what [`Holder`] runs.
#[test]
fn holder_process() {
    let Some(dir) = std::env::var_os("KILN_TEST_HOLD") else { return };
    let sharing = serde_json::from_str(&std::env::var("KILN_TEST_SHARING").unwrap()).unwrap();
    let id = std::env::var("KILN_TEST_ID").unwrap();
    let caches = caches(Path::new(&dir));
    let step = format!("process {}", std::process::id());
    let held = take(&caches, &[request(&id, sharing)], &step);
    let mut out = std::io::stdout().lock();
    writeln!(out, "held {}", held.caches()[0].path.display()).unwrap();
    let mut word = String::new();
    std::io::stdin().read_line(&mut word).unwrap();
    held.release(word.trim() == "ok").unwrap();
}

/// A directory with a finished cache `x`, whose file `state` says `one`.
fn with_finished_cache() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (held, path) = take_one(&caches(dir.path()), "x", Sharing::Shared);
    fs::write(path.join("state"), "one").unwrap();
    held.release(true).unwrap();
    dir
}

/// <https://github.com/moby/buildkit/issues/2459>: what mixed modes mean. FIELD P6.
#[test]
fn buildkit_2459_the_sharing_table_holds_between_processes() {
    use Sharing::{Locked, Private, Shared};
    let table = [
        (Shared, Shared, "goes on"),
        (Shared, Locked, "waits for {holder}"),
        (Shared, Private, "gets a copy of two"),
        (Locked, Shared, "waits for {holder}"),
        (Locked, Locked, "waits for {holder}"),
        // What it changes is in the middle of it: such a copy serves this step and no other.
        (Locked, Private, "gets a copy of two, thrown away"),
        (Private, Shared, "goes on"),
        (Private, Locked, "goes on"),
        (Private, Private, "gets a copy of one"),
    ];
    for (held, wanted, expected) in table {
        let dir = with_finished_cache();
        let holder = Holder::start(dir.path(), "x", held);
        fs::write(holder.path.join("state"), "two").unwrap();
        let expected = expected.replace("{holder}", &holder.name());
        assert_eq!(outcome(&caches(dir.path()), wanted), expected, "{held:?} held, {wanted:?} wanted");
        holder.release(true);
        // Whatever it was: afterwards the cache is free, and holds what the step left that ended well.
        let (_held, path) = take_one(&caches(dir.path()), "x", Locked);
        assert_eq!(fs::read_to_string(path.join("state")).unwrap(), "two", "{held:?}, {wanted:?}");
    }
}

#[test]
fn a_wait_ends_when_the_holder_gives_the_cache_back() {
    let dir = with_finished_cache();
    let mut holder = Holder::start(dir.path(), "x", Sharing::Locked);
    let name = holder.name();
    let mut told = Vec::new();
    let mut on_wait = |request: &CacheRequest, text: &str| {
        told.push((request.id.clone(), text.to_owned()));
        holder.tell("ok");
    };
    let held = caches(dir.path())
        .acquire(&[request("x", Sharing::Locked)], "me", &mut on_wait, &no_seed, &Cancel::new())
        .unwrap();
    assert!(!held.caches()[0].new);
    assert_eq!(told[0], ("x".to_owned(), name));
    holder.child.wait().unwrap();
}

#[test]
fn kill_9_of_a_holder_frees_the_lock_and_its_name_is_not_shown() {
    for sharing in [Sharing::Shared, Sharing::Locked, Sharing::Private] {
        let dir = with_finished_cache();
        let caches = caches(dir.path());
        assert!(caches.list().unwrap()[0].counted);
        let holder = Holder::start(dir.path(), "x", sharing);
        assert_eq!(caches.list().unwrap()[0].held_by, [holder.name()]);
        let path = holder.path.clone();
        holder.kill();
        let info = &caches.list().unwrap()[0];
        assert!(info.held_by.is_empty(), "{sharing:?}: {:?}", info.held_by);
        assert!(!info.counted, "nobody knows what it did");
        let (held, _) = take_one(&caches, "x", Sharing::Locked);
        held.release(true).unwrap();
        caches.sweep().unwrap();
        assert_eq!(path.exists(), sharing != Sharing::Private, "a dead step's copy goes");
        assert_eq!(outcome(&caches, Sharing::Private), "gets a copy of one");
    }
}

#[test]
fn buildkit_7088_shared_cache_never_forks() {
    let dir = tempfile::tempdir().unwrap();
    let (threads, rounds) = (8, 20);
    let start = Barrier::new(threads);
    let made = std::thread::scope(|scope| {
        let (start, dir) = (&start, &dir);
        let work = |thread| {
            let caches = caches(dir.path());
            move || {
                start.wait();
                let mut made = 0;
                for round in 0..rounds {
                    let held = take(&caches, &[request("x", Sharing::Shared)], "a thread");
                    let cache = &held.caches()[0];
                    made += usize::from(cache.new);
                    assert_eq!(cache.path, dir.path().join("caches/global/x/data"));
                    fs::write(cache.path.join(format!("{thread}-{round}")), "").unwrap();
                    // Ending badly takes nothing away either: `--no-cache` and failures keep the cache.
                    held.release(round % 3 == 0).unwrap();
                }
                made
            }
        };
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(work(thread))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).sum::<usize>()
    });
    assert_eq!(made, 1);
    assert_eq!(fs::read_dir(dir.path().join("caches/global/x/data")).unwrap().count(), threads * rounds);
    assert_eq!(fs::read_dir(dir.path().join("caches/global")).unwrap().count(), 1, "no half-made ones");
}

#[test]
fn buildkit_3041_mode_is_not_identity() {
    let dir = tempfile::tempdir().unwrap();
    let caches = caches(dir.path());
    let first = CacheRequest { mode: 0o1770, uid: 7, ..request("x", Sharing::Shared) };
    let held = take(&caches, &[first], "first");
    let path = held.caches()[0].path.clone();
    held.release(true).unwrap();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o1770);
    for request in [
        request("x", Sharing::Shared),
        CacheRequest { mode: 0o700, ..request("x", Sharing::Locked) },
        CacheRequest { uid: 9, gid: 9, ..request("x", Sharing::Shared) },
    ] {
        let held = take(&caches, &[request], "later");
        assert_eq!((&held.caches()[0].path, held.caches()[0].new), (&path, false));
        assert_eq!(mode(), 0o1770, "set when the directory is made, and never again");
    }
}

#[test]
fn buildkit_2598_scope_by_architecture() {
    let dir = tempfile::tempdir().unwrap();
    let caches = caches(dir.path());
    let scoped = |scope| CacheRequest { scope, ..request("/var/cache/apt", Sharing::Locked) };
    let platform = |name: &str| scoped(CacheScope::Platform(name.to_owned()));
    // All at once: no two of them are the same cache.
    let held = take(
        &caches,
        &[platform("linux/amd64"), platform("linux/arm64"), scoped(CacheScope::Global)],
        "a step",
    );
    let paths: Vec<_> =
        held.caches().iter().map(|cache| cache.path.strip_prefix(dir.path()).unwrap()).collect();
    assert_eq!(
        paths,
        [
            Path::new("caches/linux+amd64/+var+cache+apt/data"),
            Path::new("caches/linux+arm64/+var+cache+apt/data"),
            Path::new("caches/global/+var+cache+apt/data"),
        ]
    );
}

#[test]
fn buildah_pr4349_no_lock_file_inside_the_users_cache() {
    for sharing in [Sharing::Shared, Sharing::Locked, Sharing::Private] {
        let dir = tempfile::tempdir().unwrap();
        let (held, path) = take_one(&caches(dir.path()), "x", sharing);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "{sharing:?}");
        held.release(true).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("caches/global/x/data")).unwrap().count(), 0);
    }
}

#[test]
fn one_step_shares_what_it_names_twice() {
    use Sharing::{Locked, Private, Shared};
    let table = [
        ([Shared, Shared], true),
        ([Locked, Locked], true),
        ([Shared, Locked], true),
        ([Private, Locked], true),
        ([Private, Shared], false),
        ([Private, Private], false),
    ];
    for (sharing, in_place) in table {
        let dir = tempfile::tempdir().unwrap();
        let held = take(&caches(dir.path()), &sharing.map(|sharing| request("x", sharing)), "a step");
        assert_eq!(held.caches()[0], held.caches()[1], "{sharing:?}");
        assert_eq!(held.caches()[0].path.ends_with("data"), in_place, "{sharing:?}");
    }
}

/// <https://github.com/moby/buildkit/issues/1322>, <https://github.com/moby/buildkit/issues/1818>: builds that stood still over their cache mounts. FIELD P6.
#[test]
fn buildkit_1322_steps_that_lock_several_caches_in_any_order_do_not_block_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let orders = [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"], ["c", "a", "b"]];
    std::thread::scope(|scope| {
        for order in orders {
            let caches = caches(dir.path());
            scope.spawn(move || {
                for _ in 0..10 {
                    let requests = order.map(|id| request(id, Sharing::Locked));
                    let held = caches
                        .acquire(&requests, "a step", &mut |_, _| {}, &no_seed, &Cancel::new())
                        .unwrap();
                    // Alone: nobody else is between these lines.
                    for cache in held.caches() {
                        fs::create_dir(cache.path.join("alone")).unwrap();
                    }
                    for cache in held.caches() {
                        fs::remove_dir(cache.path.join("alone")).unwrap();
                    }
                    held.release(true).unwrap();
                }
            });
        }
    });
}

/// Begins a private use that writes `state`.
fn private(caches: &CacheMounts, state: &str) -> Held {
    let (held, path) = take_one(caches, "x", Sharing::Private);
    fs::write(path.join("state"), state).unwrap();
    held
}

fn state(caches: &CacheMounts) -> String {
    let (_held, path) = take_one(caches, "x", Sharing::Shared);
    fs::read_to_string(path.join("state")).unwrap()
}

#[test]
fn a_private_copy_becomes_the_cache_if_its_step_ends_well_and_the_last_one_wins() {
    let dir = with_finished_cache();
    let caches = caches(dir.path());
    private(&caches, "failed").release(false).unwrap();
    assert_eq!(state(&caches), "one");
    drop(private(&caches, "dropped"));
    assert_eq!(state(&caches), "one");
    let (first, second) = (private(&caches, "first"), private(&caches, "second"));
    second.release(true).unwrap();
    assert_eq!(state(&caches), "second");
    first.release(true).unwrap();
    assert_eq!(state(&caches), "first");
    let left: Vec<_> = fs::read_dir(dir.path().join("caches/global/x"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["data", "lock", "holders", "meta.json"].contains(&name.as_str()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_private_copy_waits_for_those_who_use_the_cache_itself() {
    // How the step in place ends decides: well, and it was the last to end well; else the copy was.
    for (ok, expected) in [(true, "in place"), (false, "copy")] {
        let dir = with_finished_cache();
        let caches = caches(dir.path());
        let (held, path) = take_one(&caches, "x", Sharing::Shared);
        private(&caches, "copy").release(true).unwrap();
        assert_eq!(outcome(&caches, Sharing::Private), "gets a copy of copy", "it is the last finished one");
        fs::write(path.join("state"), "in place").unwrap();
        held.release(ok).unwrap();
        assert_eq!(state(&caches), expected);
    }
    // Nor is it lost if that step dies.
    let dir = with_finished_cache();
    let holder = Holder::start(dir.path(), "x", Sharing::Locked);
    // Beside a step that has it alone, the copy would not be kept; so it was begun before.
    let caches = caches(dir.path());
    holder.kill();
    let in_place = Holder::start(dir.path(), "x", Sharing::Shared);
    private(&caches, "copy").release(true).unwrap();
    in_place.kill();
    assert_eq!(state(&caches), "copy");
}

#[test]
fn a_copy_of_a_cache_in_the_middle_of_a_change_is_not_kept() {
    let dir = with_finished_cache();
    let caches = caches(dir.path());
    let (locked, path) = take_one(&caches, "x", Sharing::Locked);
    fs::write(path.join("state"), "half").unwrap();
    let held = private(&caches, "from half");
    assert!(held.caches()[0].thrown_away);
    locked.release(false).unwrap();
    held.release(true).unwrap();
    assert_eq!(state(&caches), "half");
}

#[test]
fn a_seed_fills_a_new_cache_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let seed = dir.path().join("seed");
    fs::create_dir(&seed).unwrap();
    fs::write(seed.join("state"), "seed").unwrap();
    fs::set_permissions(&seed, PermissionsExt::from_mode(0o750)).unwrap();
    let caches = caches(dir.path());
    for (round, new) in [("first", true), ("second", false)] {
        let seeds = |_: &CacheRequest| Ok(Some(fs::File::open(&seed).unwrap().into()));
        let held = caches
            .acquire(&[request("x", Sharing::Shared)], "a step", &mut |_, _| {}, &seeds, &Cancel::new())
            .unwrap();
        assert_eq!(held.caches()[0].new, new, "{round}");
        let path = &held.caches()[0].path;
        assert_eq!(fs::read_to_string(path.join("state")).unwrap(), if new { "seed" } else { "used" });
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o750);
        fs::write(path.join("state"), "used").unwrap();
    }
    // A seed that cannot be had leaves nothing behind.
    let error = IoError::new("open", "/seed", &std::io::Error::from_raw_os_error(5));
    let failing = |_: &CacheRequest| Err(error.clone());
    let got = caches.acquire(&[request("y", Sharing::Shared)], "", &mut |_, _| {}, &failing, &Cancel::new());
    assert_eq!(got.unwrap_err(), CacheError::Io(error.clone()));
    assert_eq!(fs::read_dir(dir.path().join("caches/global")).unwrap().count(), 1);
}

#[test]
fn a_cache_in_use_is_not_removed() {
    for sharing in [Sharing::Shared, Sharing::Locked, Sharing::Private] {
        let dir = with_finished_cache();
        let caches = caches(dir.path());
        let holder = Holder::start(dir.path(), "x", sharing);
        let held = CacheError::Held { id: "x".to_owned(), holder: holder.name() };
        assert_eq!(caches.remove("x", None), Err(held));
        holder.release(true);
        assert_eq!(caches.remove("x", None), Ok(1));
        assert!(caches.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("caches/global")).unwrap().count(), 0);
        assert_eq!(caches.remove("x", None), Err(CacheError::NoCache { id: "x".to_owned() }));
        let (held, path) = take_one(&caches, "x", Sharing::Shared);
        assert!(held.caches()[0].new);
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
    }
}

#[test]
fn removing_while_others_take_it_is_clean_for_both() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for sharing in [Sharing::Shared, Sharing::Locked, Sharing::Private] {
            let caches = caches(dir.path());
            scope.spawn(move || {
                for _ in 0..30 {
                    let held = caches
                        .acquire(&[request("x", sharing)], "a step", &mut |_, _| {}, &no_seed, &Cancel::new())
                        .unwrap();
                    fs::write(held.caches()[0].path.join("f"), "").unwrap();
                    held.release(true).unwrap();
                }
            });
        }
        let caches = caches(dir.path());
        scope.spawn(move || {
            for _ in 0..60 {
                match caches.remove("x", None) {
                    Ok(_) | Err(CacheError::Held { .. } | CacheError::NoCache { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    });
}

#[test]
fn a_list_says_what_is_kept_of_each_cache() {
    let dir = tempfile::tempdir().unwrap();
    let caches = caches(dir.path());
    for id in ["apt", "/root/.cache/pip", "../../etc", "a\nb", &"long/".repeat(100)] {
        let requests = [
            request(id, Sharing::Shared),
            CacheRequest { target: "/other".to_owned(), ..request(id, Sharing::Shared) },
        ];
        let held = take(&caches, &requests, &format!("step of {id}"));
        fs::write(held.caches()[0].path.join("f"), vec![1; 10_000]).unwrap();
        held.release(true).unwrap();
    }
    let list = caches.list().unwrap();
    let ids: Vec<_> = list.iter().map(|info| info.id.as_str()).collect();
    assert_eq!(ids, ["../../etc", "/root/.cache/pip", "a\nb", "apt", &"long/".repeat(100)]);
    for info in &list {
        assert_eq!(info.last_step, format!("step of {}", info.id));
        assert_eq!(info.targets, [format!("/cache/{}", info.id), "/other".to_owned()]);
        assert_eq!((info.files, info.counted), (1, true));
        assert!(info.size >= 10_000 && info.created > 0 && info.last_used >= info.created);
        assert!(info.path.starts_with(dir.path().join("caches/global")), "{:?}", info.path);
        assert!(info.path.join("f").exists());
    }
    assert_eq!(caches.remove(&"long/".repeat(100), Some(&CacheScope::Global)), Ok(1));
    assert_eq!(caches.list().unwrap().len(), 4);
}

#[test]
fn a_large_cache_is_counted_beside_what_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let caches = caches(dir.path());
    let (held, path) = take_one(&caches, "x", Sharing::Shared);
    for i in 0..2500 {
        fs::write(path.join(i.to_string()), "").unwrap();
    }
    fs::write(path.join("f"), vec![1; 50_000]).unwrap();
    fs::hard_link(path.join("f"), path.join("g")).unwrap();
    held.release(true).unwrap();
    // By a thread that nobody waits for, but for this test.
    caches.settle(std::time::Duration::from_secs(600));
    let info = &caches.list().unwrap()[0];
    assert!(info.counted);
    assert_eq!(info.files, 2502);
    let du = Command::new("du").args(["-s", "-B1"]).arg(&path).output().unwrap();
    let du = String::from_utf8(du.stdout).unwrap();
    assert_eq!(info.size.to_string(), du.split_whitespace().next().unwrap());
}

#[test]
fn people_may_delete_and_damage_what_they_see() {
    let dir = with_finished_cache();
    let caches = caches(dir.path());
    let home = dir.path().join("caches/global/x");
    fs::remove_dir_all(home.join("data")).unwrap();
    let (held, path) = take_one(&caches, "x", Sharing::Shared);
    assert!(held.caches()[0].new);
    fs::write(path.join("state"), "two").unwrap();
    held.release(true).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("caches/global")).unwrap().count(), 1);

    fs::write(home.join("meta.json"), "{").unwrap();
    let info = &caches.list().unwrap()[0];
    assert_eq!((info.id.as_str(), &info.scope, info.counted), ("x", &CacheScope::Global, false));
    assert_eq!(state(&caches), "two");
    assert!(caches.list().unwrap()[0].counted, "a use writes it again");

    fs::remove_file(home.join("lock")).unwrap();
    assert_eq!(state(&caches), "two");
    assert_eq!(outcome(&caches, Sharing::Private), "gets a copy of two");
}
