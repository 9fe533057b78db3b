//! Caches held outside of a build, and caches in directories of the user's.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_core::{CacheScope, Cancel, IoError, Sharing};
use kiln_store::Ids;
use kiln_store::cache_mount::{
    CacheError, CacheMounts, CacheName, CachePlace, CacheRequest, Held, HoldAs, PlaceProblem, STAGED_INSIDE,
};

fn request(id: &str, sharing: Sharing) -> CacheRequest {
    let (id, target) = (id.to_owned(), format!("/cache/{id}"));
    let scope = CacheScope::Global;
    CacheRequest { id, scope, sharing, mode: 0o755, uid: 0, gid: 0, read_only: false, target }
}

fn name(id: &str) -> CacheName {
    CacheName { id: id.to_owned(), scope: CacheScope::Global }
}

/// As a store has it: two directories deep.
fn caches(store: &Path) -> CacheMounts {
    CacheMounts::new(store.join("single/caches"), Ids::Single)
}

fn placed(store: &Path, id: &str, path: &Path) -> CacheMounts {
    try_placed(store, &[(id, path)]).unwrap()
}

fn try_placed(store: &Path, places: &[(&str, &Path)]) -> Result<CacheMounts, CacheError> {
    fs::create_dir_all(store).unwrap();
    let place = |(id, path): &(&str, &Path)| CachePlace {
        id: (*id).to_owned(),
        scope: None,
        path: path.to_path_buf(),
        standing: false,
    };
    caches(store).placed(&places.iter().map(place).collect::<Vec<_>>(), "linux/amd64")
}

fn no_seed(_: &CacheRequest) -> Result<Option<OwnedFd>, IoError> {
    Ok(None)
}

fn try_take(caches: &CacheMounts, request: CacheRequest) -> Result<Held, CacheError> {
    let mut waits = |request: &CacheRequest, holder: &str| panic!("{} waits for {holder}", request.id);
    caches.acquire(&[request], "a test", &mut waits, &no_seed, &Cancel::new())
}

fn take(caches: &CacheMounts, id: &str, sharing: Sharing) -> Held {
    try_take(caches, request(id, sharing)).unwrap()
}

/// Whom a step would wait for that wants the cache.
fn waits_for(caches: &CacheMounts, id: &str, sharing: Sharing) -> Option<String> {
    let cancel = Cancel::new();
    let mut holder = None;
    let mut on_wait = |_: &CacheRequest, text: &str| {
        holder = Some(text.to_owned());
        cancel.cancel();
    };
    match caches.acquire(&[request(id, sharing)], "a second", &mut on_wait, &no_seed, &cancel) {
        Ok(_) => None,
        Err(CacheError::Cancelled) => holder,
        Err(error) => panic!("{error}"),
    }
}

fn problem(result: Result<impl std::fmt::Debug, CacheError>) -> PlaceProblem {
    match result.unwrap_err() {
        CacheError::Place { problem, .. } => problem,
        error => panic!("{error}"),
    }
}

#[test]
fn a_hold_keeps_steps_out_and_says_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let caches = caches(dir.path());
    let nobody = &mut |who: &str| panic!("waits for {who}");
    let missing = caches.hold(&name("x"), HoldAs::Read, "an export", nobody, &Cancel::new());
    assert!(matches!(missing, Err(CacheError::NoCache { id }) if id == "x"));
    take(&caches, "x", Sharing::Shared).release(true).unwrap();
    let hold = caches.hold(&name("x"), HoldAs::Read, "an export", nobody, &Cancel::new()).unwrap();
    assert_eq!(waits_for(&caches, "x", Sharing::Shared).as_deref(), Some("an export"));
    assert!(
        matches!(caches.remove("x", None), Err(CacheError::Held { holder, .. }) if holder == "an export")
    );
    drop(hold);
    assert_eq!(waits_for(&caches, "x", Sharing::Shared), None);
    // And the other way round.
    let held = take(&caches, "x", Sharing::Shared);
    let cancel = Cancel::new();
    let mut seen = String::new();
    let mut on_wait = |who: &str| {
        seen = who.to_owned();
        cancel.cancel();
    };
    let waited = caches.hold(&name("x"), HoldAs::Read, "an export", &mut on_wait, &cancel);
    assert!(matches!(waited, Err(CacheError::Cancelled)));
    assert_eq!(seen, "a test");
    drop(held);
}

#[test]
fn a_cache_is_replaced_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let caches = caches(dir.path());
    let hold = |caches: &CacheMounts| {
        caches.hold(&name("x"), HoldAs::Replace, "an import", &mut |_| {}, &Cancel::new()).unwrap()
    };
    let first = hold(&caches);
    let stage = first.stage().unwrap();
    fs::write(stage.path().join("f"), "one").unwrap();
    assert!(!first.path().join("f").exists());
    first.replace(stage).unwrap();
    let info = caches.find(&name("x")).unwrap().unwrap();
    assert_eq!(fs::read_to_string(info.path.join("f")).unwrap(), "one");
    assert_eq!((info.files, info.counted, info.last_step.as_str()), (1, true, "an import"));
    // Dropped, nothing happened, and nothing is left.
    let second = hold(&caches);
    let stage = second.stage().unwrap();
    fs::write(stage.path().join("f"), "two").unwrap();
    drop((stage, second));
    assert_eq!(fs::read_to_string(info.path.join("f")).unwrap(), "one");
    let left: Vec<_> =
        fs::read_dir(info.path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn buildkit_1512_a_cache_is_kept_where_the_user_wants_it_and_nothing_else_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (store, place) = (dir.path().join("store"), dir.path().join("volume/pip"));
    let caches = placed(&store, "pip", &place);
    let held = take(&caches, "pip", Sharing::Locked);
    assert_eq!(held.caches()[0].path, fs::canonicalize(&place).unwrap());
    assert!(held.caches()[0].new);
    fs::write(place.join("wheel"), "x").unwrap();
    held.release(true).unwrap();
    let names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["wheel"]);
    // It is listed, whoever asks; and the store's own cache of that id is another.
    let listed = self::caches(&store).list().unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str(), listed[0].placed, listed[0].files), (1, "pip", true, 1));
    assert_eq!(listed[0].path, fs::canonicalize(&place).unwrap());
    let own = take(&self::caches(&store), "pip", Sharing::Shared);
    assert!(own.caches()[0].new && own.caches()[0].path.starts_with(&store));
    drop(own);
    // Without a scope it is that of this machine's platform, too, and of no other.
    let of =
        |platform: &str| CacheName { id: "pip".to_owned(), scope: CacheScope::Platform(platform.to_owned()) };
    assert!(caches.find(&of("linux/amd64")).unwrap().is_some_and(|cache| cache.placed));
    assert!(caches.find(&of("linux/arm64")).unwrap().is_none());
}

#[test]
fn two_stores_that_place_one_directory_share_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("volume");
    let one = placed(&dir.path().join("one"), "a", &place);
    let two = placed(&dir.path().join("two"), "b", &place);
    let held = take(&one, "a", Sharing::Locked);
    // The other store has no note of who it is: the kernel says which process.
    let holder = waits_for(&two, "b", Sharing::Shared).unwrap();
    assert!(holder.starts_with(&format!("process {}", std::process::id())), "{holder}");
    held.release(true).unwrap();
    let held = take(&one, "a", Sharing::Shared);
    assert_eq!(waits_for(&two, "b", Sharing::Shared), None);
    assert!(waits_for(&two, "b", Sharing::Locked).is_some());
    drop(held);
}

#[test]
fn a_private_copy_takes_the_place_of_a_placed_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (store, place) = (dir.path().join("store"), dir.path().join("volume"));
    let caches = placed(&store, "x", &place);
    let other = placed(&dir.path().join("other"), "x", &place);
    fs::create_dir(&place).unwrap();
    fs::write(place.join("f"), "one").unwrap();
    let held = take(&caches, "x", Sharing::Private);
    assert!(!held.caches()[0].new);
    let copy = held.caches()[0].path.clone();
    fs::write(copy.join("f"), "two").unwrap();
    assert_eq!(fs::read_to_string(place.join("f")).unwrap(), "one");
    // A step in place, also of another store, keeps the copy waiting.
    let in_place = take(&other, "x", Sharing::Shared);
    held.release(true).unwrap();
    assert_eq!(fs::read_to_string(place.join("f")).unwrap(), "one");
    drop(in_place);
    let next = take(&caches, "x", Sharing::Locked);
    assert_eq!(fs::read_to_string(place.join("f")).unwrap(), "two");
    // The directory is another now, and its lock is held.
    assert!(waits_for(&other, "x", Sharing::Locked).is_some());
    next.release(true).unwrap();
    // Beside a step that has it alone, a private step waits.
    let locked = take(&other, "x", Sharing::Locked);
    assert!(waits_for(&caches, "x", Sharing::Private).is_some());
    drop(locked);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing of kiln's beside the user's directory");
}

#[test]
fn removing_a_placed_cache_leaves_the_users_files() {
    let dir = tempfile::tempdir().unwrap();
    let (store, place) = (dir.path().join("store"), dir.path().join("volume"));
    let caches = placed(&store, "x", &place);
    let held = take(&caches, "x", Sharing::Shared);
    fs::write(place.join("f"), "mine").unwrap();
    assert!(matches!(caches.remove("x", Some(&CacheScope::Global)), Err(CacheError::Held { .. })));
    held.release(true).unwrap();
    assert_eq!(caches.remove("x", Some(&CacheScope::Global)).unwrap(), 1);
    assert_eq!(fs::read_to_string(place.join("f")).unwrap(), "mine");
    assert!(caches.list().unwrap().is_empty());
    // One whose directory is gone, as in a store from another machine, is listed, and goes.
    take(&caches, "x", Sharing::Shared).release(true).unwrap();
    fs::remove_dir_all(&place).unwrap();
    assert_eq!(self::caches(&store).list().unwrap().len(), 1);
    assert!(caches.find(&name("x")).unwrap().is_none());
    assert_eq!(caches.remove("x", None).unwrap(), 1);
    assert!(!place.exists());
}

#[test]
fn places_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (store, one, two) = (at("store"), at("one"), at("two"));
    let file = at("file");
    fs::write(&file, "").unwrap();
    assert_eq!(problem(try_placed(&store, &[("x", &file)])), PlaceProblem::NotADirectory);
    assert_eq!(problem(try_placed(&store, &[("x", Path::new("/"))])), PlaceProblem::Root);
    let inside = PlaceProblem::Store { root: fs::canonicalize(&store).unwrap() };
    assert_eq!(problem(try_placed(&store, &[("x", &store.join("single/caches/global/y/data"))])), inside);
    assert_eq!(problem(try_placed(&store, &[("x", dir.path())])), inside);
    std::os::unix::fs::symlink(&store, at("link")).unwrap();
    assert_eq!(problem(try_placed(&store, &[("x", &at("link/new"))])), inside);
    let taken = problem(try_placed(&store, &[("x", &one), ("y", &at("store/../one"))]));
    assert_eq!(taken, PlaceProblem::Taken { other: "x".to_owned() });
    let twice = problem(try_placed(&store, &[("x", &one), ("x", &two)]));
    assert_eq!(twice, PlaceProblem::Twice { other: fs::canonicalize(dir.path()).unwrap().join("one") });
    assert!(try_placed(&store, &[("x", &one), ("y", &two)]).is_ok());
    let chroot = caches(&store)
        .moving()
        .placed(&[CachePlace { id: "x".to_owned(), scope: None, path: one, standing: false }], "linux/amd64");
    assert_eq!(problem(chroot), PlaceProblem::Chroot);
}

#[test]
fn a_directory_on_another_file_system_is_shared_or_locked_and_not_private() {
    let other = Path::new("/dev/shm");
    let dir = tempfile::tempdir().unwrap();
    let Ok(there) = tempfile::tempdir_in(other) else {
        return skip("/dev/shm cannot be written to");
    };
    let device = |path: &Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).unwrap());
    if device(dir.path()) == device(there.path()) {
        return skip("/dev/shm and the temporary directory are one file system");
    }
    let place = there.path().join("x");
    let caches = placed(&dir.path().join("store"), "x", &place);
    let held = take(&caches, "x", Sharing::Locked);
    fs::write(place.join("f"), "one").unwrap();
    held.release(true).unwrap();
    let NoSwap { reason } = no_swap(try_take(&caches, request("x", Sharing::Private)));
    assert!(reason.contains("another file system"), "{reason}");
    let import = caches.hold(&name("x"), HoldAs::Replace, "an import", &mut |_| {}, &Cancel::new());
    assert!(no_swap(import).reason.contains("another file system"));
    caches.hold(&name("x"), HoldAs::Read, "an export", &mut |_| {}, &Cancel::new()).unwrap();
    assert_eq!(fs::read_dir(there.path()).unwrap().count(), 1);
    // File by file it goes. What a killed import left is swept by the next, and what one is at work on is not.
    let fill = || caches.hold(&name("x"), HoldAs::Fill, "an import", &mut |_| {}, &Cancel::new()).unwrap();
    fs::create_dir(place.join(format!("{STAGED_INSIDE}dead"))).unwrap();
    let hold = fill();
    let stage = hold.stage().unwrap();
    assert!(stage.is_inside());
    drop(hold);
    let hold = fill();
    assert!(stage.path().is_dir() && fs::read_dir(&place).unwrap().count() == 2);
    no_swap(hold.replace(stage));
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
}

fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped: {reason}");
    // What a test harness shows.
    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {reason}\n")).unwrap();
}

struct NoSwap {
    reason: String,
}

fn no_swap(result: Result<impl std::fmt::Debug, CacheError>) -> NoSwap {
    match problem(result) {
        PlaceProblem::NoSwap { reason } => NoSwap { reason },
        other => panic!("{other}"),
    }
}

#[test]
fn what_a_newer_kiln_knows_of_a_cache_stays() {
    let dir = tempfile::tempdir().unwrap();
    let caches = caches(dir.path());
    take(&caches, "x", Sharing::Shared).release(true).unwrap();
    let meta = dir.path().join("single/caches/global/x/meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, text.replacen('{', "{\"colour\": {\"is\": \"red\"},", 1)).unwrap();
    take(&caches, "x", Sharing::Shared).release(true).unwrap();
    let text: serde_json::Value = serde_json::from_str(&fs::read_to_string(&meta).unwrap()).unwrap();
    assert_eq!(text["colour"]["is"], "red");
    assert_eq!(text["figures"]["uses"], 2);
}

#[test]
fn figures_say_what_uses_found_added_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let caches = caches(dir.path());
    let use_it = |work: &dyn Fn(&Path)| {
        let held = take(&caches, "x", Sharing::Shared);
        work(&held.caches()[0].path);
        held.release(true).unwrap();
        let cache = caches.find(&name("x")).unwrap().unwrap();
        (cache.figures, cache.size, cache.counted_at > 0)
    };
    let (first, full, counted) = use_it(&|path| fs::write(path.join("a"), [1; 9000]).unwrap());
    assert_eq!((first.uses, first.warm, first.found_files, first.added_files, counted), (1, 0, 0, 1, true));
    let (second, less, _) = use_it(&|path| {
        fs::remove_file(path.join("a")).unwrap();
        fs::create_dir(path.join("d")).unwrap();
    });
    assert_eq!((second.uses, second.warm, second.found_files, second.found_bytes), (2, 1, 1, full));
    assert_eq!((second.removed_files, second.removed_bytes, second.added_bytes), (1, full - less, full));
}
