//! A model test of the whole program: processes that build, export and import caches, collect and remove at once on one store, and
//! are killed in the middle, in an order that a seed decides. After each round the store's checker finds nothing, and caches,
//! images and exports are what a simple model says.
//!
//! `KILN_MODEL_SEED` and `KILN_MODEL_ROUNDS` repeat a run, or make it longer. What a library's processes do to a store without
//! exports is in `crates/store/tests/model.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_testkit::random::{Random, number};
use kiln_testkit::registry::FakeRegistry;
use rustix::process::Signal;

use crate::place::{BASE, Place, Running};
use crate::user::{User, for_each_user};

/// Processes at once. Each has a cache, an image and exports of its own: who was last would be anybody's guess.
const SLOTS: usize = 3;
const ROUNDS: u64 = 8;
/// Where each slot exports to; the directory is one for all.
const PLACES: usize = 3;
/// Bytes that a capped export may have.
const CAP: u64 = 400_000;
const SIZES: [usize; 4] = [0, 3_000, 150_000, 700_000];

/// What a cache holds: a file's name, and in which round it was written. The larger round is the newer file.
type Files = BTreeMap<String, u64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// A step that writes a file into the cache, or replaces one, or removes it; and an image.
    Build {
        file: u64,
        remove: bool,
        bounded: bool,
    },
    Export {
        place: usize,
        capped: bool,
    },
    Import {
        place: usize,
        replace: bool,
    },
    DropCache {
        prune: bool,
    },
    DropImage,
    Collect {
        all: bool,
    },
}

fn act(random: &mut Random) -> Act {
    let place = random.below(PLACES as u64) as usize;
    match random.below(16) {
        0..=5 => {
            Act::Build { file: random.below(4), remove: random.below(5) == 0, bounded: random.below(8) == 0 }
        }
        6..=9 => Act::Export { place, capped: random.below(3) == 0 },
        10..=12 => Act::Import { place, replace: random.below(2) == 0 },
        13 => Act::DropCache { prune: random.below(2) == 0 },
        14 => Act::DropImage,
        _ => Act::Collect { all: random.below(2) == 0 },
    }
}

/// What must be there, or may be: whoever was killed had come so far or not.
#[derive(Default)]
struct Model {
    caches: [Vec<Option<Files>>; SLOTS],
    /// By slot and place: what an import would bring.
    exports: BTreeMap<(usize, usize), Vec<Exported>>,
    /// In which round an image was built.
    images: [Vec<Option<u64>>; SLOTS],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exported {
    Nothing,
    All(Files),
    /// Only so much of it as was allowed.
    Some(Files),
}

struct Run<'a> {
    place: &'a Place,
    registry: FakeRegistry,
    model: Model,
    told: String,
}

impl Run<'_> {
    fn where_to(&self, slot: usize, place: usize) -> String {
        match place {
            0 => format!("oci:exports:c{slot}"),
            1 => format!("oci-archive:export-{slot}.tar"),
            _ => format!("docker://{}/caches:c{slot}", self.registry.host()),
        }
    }

    fn start(&self, slot: usize, act: Act, round: u64) -> Running {
        let words: Vec<String> = match act {
            Act::Build { file, remove, bounded } => {
                let cached = match remove {
                    true => format!("rm -f /c/f{file}"),
                    // It appears whole, as the files of a package manager do that is worth its name.
                    false => format!(
                        "{{ echo {round}; head -c {} /dev/zero; }} > /c/.new && mv /c/.new /c/f{file}",
                        SIZES[file as usize]
                    ),
                };
                let text = format!(
                    "{BASE}RUN --mount=type=cache,id=c{slot},target=/c : {round} {slot}; {cached} && echo {round} > /v\n"
                );
                let name = format!("context/{slot}.Dockerfile");
                self.place.file(&name, &text);
                let mut words = vec!["build".to_owned(), "-f".into(), name, format!("-t=i{slot}")];
                words.extend(bounded.then(|| "--max-store=3m".to_owned()));
                words.push("context".to_owned());
                words
            }
            Act::Export { place, capped } => {
                let to = format!("--to={}", self.where_to(slot, place));
                let mut words = vec!["cache".to_owned(), "export".into(), format!("c{slot}"), to];
                // The one that was exported last is what is imported.
                words.push("--keep=1".to_owned());
                words.extend(capped.then(|| format!("--max-size={CAP}")));
                words
            }
            Act::Import { place, replace } => {
                let from = format!("--from={}", self.where_to(slot, place));
                let mut words = vec!["cache".to_owned(), "import".into(), "--strategy=newest".into(), from];
                words.extend(replace.then(|| "--replace".to_owned()));
                words
            }
            Act::DropCache { prune: false } => vec!["cache".into(), "rm".into(), format!("c{slot}")],
            Act::DropCache { prune: true } => {
                vec!["cache".into(), "prune".into(), format!("--filter=id=c{slot}")]
            }
            Act::DropImage => vec!["rmi".into(), format!("i{slot}")],
            Act::Collect { all } => {
                ["prune"].into_iter().chain(all.then_some("--all")).map(str::to_owned).collect()
            }
        };
        self.place.spawn(self.place.command(&words).env("KILN_PROGRESS", "quiet"))
    }

    /// What a cache holds; what is half-written has a dot before it.
    fn found(&self, slot: usize) -> Option<Files> {
        let ids = if self.place.user == User::Plain { "single" } else { "full" };
        let data = self.place.path(&format!("store/{ids}/caches/global/c{slot}/data"));
        let mut files = Files::new();
        for entry in std::fs::read_dir(data).ok()? {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') {
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            let line = bytes.iter().position(|byte| *byte == b'\n').expect("a file is whole");
            let number: usize = name.strip_prefix('f').unwrap().parse().unwrap();
            assert_eq!(bytes.len() - line - 1, SIZES[number], "{name} is not whole {}", self.told);
            files.insert(name, String::from_utf8_lossy(&bytes[..line]).parse().unwrap());
        }
        Some(files)
    }

    /// Takes what an act may have done, or must have, into the model.
    fn done(&mut self, slot: usize, act: Act, round: u64, killed: bool, bounded: bool, code: Option<i32>) {
        let mut before = self.model.caches[slot].clone();
        if bounded {
            before.push(None);
        }
        // Whether it was done in whole.
        let killed = killed || bounded;
        let mut after = before.clone();
        let code_of = |expected: &[i32]| {
            assert!(
                killed || code.is_some_and(|code| expected.contains(&code)),
                "{act:?}: {code:?} {}",
                self.told
            );
        };
        match act {
            Act::Build { file, remove, .. } => {
                code_of(&[0]);
                for cache in &mut after {
                    let files = cache.get_or_insert_default();
                    match remove {
                        true => _ = files.remove(&format!("f{file}")),
                        false => _ = files.insert(format!("f{file}"), round),
                    }
                }
                if killed {
                    // A new cache is empty at first.
                    after.extend(before.iter().filter(|cache| cache.is_none()).map(|_| Some(Files::new())));
                }
                let images = &mut self.model.images[slot];
                if !killed {
                    images.clear();
                }
                images.push(Some(round));
            }
            Act::Export { place, capped } => {
                let exports =
                    self.model.exports.entry((slot, place)).or_insert_with(|| vec![Exported::Nothing]);
                match &self.model.caches[slot][0] {
                    None => code_of(&[2]),
                    Some(files) => {
                        code_of(&[0]);
                        if !killed {
                            exports.clear();
                        }
                        exports.push(match capped {
                            true => Exported::Some(files.clone()),
                            false => Exported::All(files.clone()),
                        });
                    }
                }
            }
            Act::Import { place, replace } => {
                let exports = self.model.exports.get(&(slot, place));
                let exports = exports.cloned().unwrap_or_else(|| vec![Exported::Nothing]);
                if exports == [Exported::Nothing] {
                    assert!(killed || code != Some(0), "nothing was imported from {}", self.told);
                } else if !exports.contains(&Exported::Nothing) {
                    code_of(&[0]);
                }
                let found = self.found(slot);
                let fits = |exported: &Exported| match exported {
                    Exported::Nothing => before.contains(&found),
                    exported => before.iter().any(|before| {
                        found.as_ref().is_some_and(|found| brings(exported, before.as_ref(), found, replace))
                    }),
                };
                let possible =
                    exports.iter().any(fits) || killed && Self::half(&before, &exports, found.as_ref());
                assert!(possible, "{slot}: {found:?} from {before:?} and {exports:?} {}", self.told);
                after = vec![found];
            }
            Act::DropCache { prune } => {
                code_of(if before == [None] && !prune { &[2] } else { &[0] });
                after = vec![None];
            }
            Act::DropImage => {
                let images = &mut self.model.images[slot];
                code_of(if *images == [None] { &[2] } else { &[0, 2] });
                if !killed {
                    images.clear();
                }
                images.push(None);
            }
            Act::Collect { .. } => code_of(&[0]),
        }
        if killed && !matches!(act, Act::Import { .. }) {
            after.extend(before);
        }
        self.model.caches[slot] = after;
    }

    /// Files come one by one: each is the old one or the new one.
    fn half(before: &[Option<Files>], exports: &[Exported], found: Option<&Files>) -> bool {
        let Some(found) = found else { return before.contains(&None) };
        let known = |name: &String, round: &u64| {
            let old = before.iter().flatten().any(|files| files.get(name) == Some(round));
            let new = exports.iter().any(|exported| exported.files().get(name) == Some(round));
            old || new
        };
        found.iter().all(|(name, round)| known(name, round))
    }

    fn check(&mut self, bounded: bool) {
        self.place.fsck();
        for slot in 0..SLOTS {
            let found = self.found(slot);
            let possible = &self.model.caches[slot];
            // Who keeps the store within a bound takes whole caches.
            let gone = bounded && found.is_none();
            assert!(
                possible.contains(&found) || gone,
                "{slot}: {found:?}, not one of {possible:?} {}",
                self.told
            );
            self.model.caches[slot] = vec![found];
            let image = self.place.kiln(&["images", "-q", &format!("i{slot}")]).ok().out();
            let (there, images) = (!image.trim().is_empty(), &mut self.model.images[slot]);
            images.retain(|image| image.is_some() == there);
            assert!(!images.is_empty(), "image {slot} is there: {there} {}", self.told);
        }
    }
}

impl Exported {
    fn files(&self) -> Files {
        match self {
            Self::Nothing => Files::new(),
            Self::All(files) | Self::Some(files) => files.clone(),
        }
    }
}

/// Whether an import of this leaves what was found.
fn brings(exported: &Exported, before: Option<&Files>, found: &Files, replace: bool) -> bool {
    let kept = if replace { Files::new() } else { before.cloned().unwrap_or_default() };
    let merged = |files: &Files| {
        let mut merged = kept.clone();
        for (name, round) in files {
            let newest = merged.entry(name.clone()).or_insert(*round);
            *newest = (*newest).max(*round);
        }
        merged
    };
    match exported {
        Exported::Nothing => false,
        Exported::All(files) => merged(files) == *found,
        // Any of them that fit.
        Exported::Some(files) => (0..1_u32 << files.len()).any(|chosen| {
            let some: Files = files
                .iter()
                .enumerate()
                .filter(|(at, _)| chosen & 1 << at != 0)
                .map(|(_, (name, round))| (name.clone(), *round))
                .collect();
            let size: usize = some.keys().map(|name| SIZES[name[1..].parse::<usize>().unwrap()]).sum();
            size as u64 <= CAP && merged(&some) == *found
        }),
    }
}

/// Files and directories below: how far somebody is.
fn entries(dir: &Path) -> usize {
    let below = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => 1 + entries(&entry.path()),
        _ => 1,
    };
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(below).sum()
}

#[test]
fn caches_are_what_builds_exports_and_imports_made_of_them_whoever_is_killed() {
    for_each_user(|user| {
        let seed = number("KILN_MODEL_SEED", 20_261_122) + user as u64;
        let mut random = Random(seed);
        let place = Place::new(user);
        place.directory("exports");
        let mut run = Run {
            place: &place,
            registry: FakeRegistry::start(),
            model: Model {
                caches: std::array::from_fn(|_| vec![None]),
                images: std::array::from_fn(|_| vec![None]),
                exports: BTreeMap::new(),
            },
            told: String::new(),
        };
        place.kiln(&["images"]).ok();
        for round in 1..=number("KILN_MODEL_ROUNDS", ROUNDS) {
            let acts: Vec<Act> = (0..SLOTS).map(|_| act(&mut random)).collect();
            let victim = (random.below(2) == 0).then(|| random.below(SLOTS as u64) as usize);
            let (far, at_once) = (random.below(12) as usize, entries(&place.path("")));
            run.told = format!(
                "in round {round} of KILN_MODEL_SEED={} as {user:?}: {acts:?}, killed {victim:?}",
                seed - user as u64
            );
            let bounded = acts.iter().any(|act| matches!(act, Act::Build { bounded: true, .. }));
            let mut processes: Vec<Running> =
                acts.iter().enumerate().map(|(slot, act)| run.start(slot, *act, round)).collect();
            if let Some(victim) = victim {
                let process = &mut processes[victim];
                // When the store and the exports have become so much larger, by whomever; or when it has ended.
                while !process.ended() && entries(&place.path("")) < at_once + far {
                    std::thread::yield_now();
                }
                if !process.ended() {
                    process.signal(Signal::KILL);
                }
            }
            for (slot, process) in processes.into_iter().enumerate() {
                let ran = process.wait();
                let killed = ran.code.is_none();
                if killed {
                    // Its step ends with it, a moment later.
                    place.wait_until_quiet();
                }
                run.told.push_str(&format!("\n{slot}: {ran}"));
                run.done(slot, acts[slot], round, killed, bounded, ran.code);
            }
            run.check(bounded);
        }
        for slot in 0..SLOTS {
            let images: Vec<u64> = run.model.images[slot].iter().flatten().copied().collect();
            if !images.is_empty() {
                let round = place.run(&format!("i{slot}"), "cat /v");
                assert!(
                    images.contains(&round.trim().parse().unwrap()),
                    "{round} is none of {images:?} {}",
                    run.told
                );
            }
        }
        place.kiln(&["cache", "ls"]).ok();
        assert_eq!(place.half_made(), [""; 0], "{}", run.told);
    });
}
