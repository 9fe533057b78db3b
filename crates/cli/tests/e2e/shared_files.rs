//! Layers of one COPY that share the files which did not change: nobody sees it, and no step changes them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::place::{Place, Ran};
use crate::rungs::rungs;
use crate::user::for_each_user;

/// The trees of layers that have `d/a`.
fn layers(place: &Place) -> Vec<PathBuf> {
    let all = ["store/full/layers", "store/single/layers"].map(|layers| fs::read_dir(place.path(layers)));
    let trees =
        all.into_iter().flatten().flatten().map(|layer| layer.expect("it can be read").path().join("fs"));
    trees.filter(|tree| tree.join("d/a").exists()).collect()
}

/// All that a step could change of the files below a directory.
fn facts(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut facts = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("it is there") {
        let path = entry.expect("it can be read").path();
        let found = path.symlink_metadata().expect("it is there");
        if found.is_dir() {
            facts.extend(self::facts(&path));
        }
        let content = if found.is_file() { fs::read(&path).expect("root may") } else { Vec::new() };
        let times = (found.mtime(), found.mtime_nsec());
        facts.insert(
            path,
            format!("{content:?} {:o} {} {} {times:?}", found.mode(), found.uid(), found.gid()),
        );
    }
    facts
}

const CHANGES: &str = "RUN echo more >> /d/a && chmod 4700 /d/b && touch /d/sub/e && ln /d/x /hard && echo y >> /hard && \
                       mv /d/sub/f /moved && echo z >> /moved && rm /d/gone && : > /d/cut && (chown 1:1 /d/own || true)\n\
                       RUN echo again >> /d/a && echo again >> /hard && echo again >> /d/sub/g\n";

#[test]
fn a_step_over_shared_files_changes_none_of_them() {
    for rung in rungs() {
        let place = Place::with(rung.user, "COPY d /d\n");
        for name in ["a", "b", "x", "c", "gone", "cut", "own", "sub/e", "sub/f", "sub/g"] {
            place.file(&format!("context/d/{name}"), &format!("{name}, as it was\n"));
        }
        let build = || Ran::of(&mut place.build_command("store", rung.args)).ok();
        build();
        place.file("context/d/c", "changed");
        build();
        let made = layers(&place);
        let inodes: Vec<u64> =
            made.iter().map(|tree| tree.join("d/a").metadata().expect("it is there").ino()).collect();
        assert_eq!((inodes.len(), inodes[0]), (2, inodes[1]), "they are shared: {}", rung.name);

        let before: Vec<_> = made.iter().map(|tree| facts(tree)).collect();
        place.base(&format!("COPY d /d\n{CHANGES}"));
        let ran = build();
        assert_eq!(ran.count("CACHED"), 2, "{}", ran.stderr);
        let after: Vec<_> = made.iter().map(|tree| facts(tree)).collect();
        assert_eq!(before, after, "{}", rung.name);

        // And so does a bind mount of a stage that may be written to.
        place.base(&format!(
            "COPY d /d\nFROM scratch\nCOPY bin /bin\nRUN --mount=type=bind,from=0,source=/d,target=/d,rw {}",
            "echo more >> /d/a && chmod 700 /d/b && rm /d/gone && : > /d/cut\n"
        ));
        build();
        assert_eq!(before, made.iter().map(|tree| facts(tree)).collect::<Vec<_>>(), "{}", rung.name);
        place.fsck();
    }
}

#[test]
fn processes_that_share_at_once_make_what_each_makes_alone() {
    for_each_user(|user| {
        let place = Place::new(user);
        let contexts = ["one", "two", "three"];
        for context in contexts {
            for number in 0..300 {
                place.file(&format!("{context}/d/{}/{number}", number % 7), &format!("file {number}"));
            }
        }
        // Times count: they are the same in all.
        for context in contexts {
            for number in 0..300 {
                let path = place.path(&format!("{context}/d/{}/{number}", number % 7));
                let file = fs::File::options().write(true).open(path).expect("root may");
                file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000))
                    .expect("so it is");
            }
        }
        let command = |store: &str, context: &str| {
            let tools = "--build-context=tools=context";
            let mut command =
                place.command_on(store, &["build", "--progress=plain", tools, "-f", "Dockerfile", context]);
            command.env("SOURCE_DATE_EPOCH", "1000000000");
            command
        };
        place.file("Dockerfile", "FROM scratch\nCOPY --from=tools bin /bin\nCOPY d /d\n");
        Ran::of(&mut command("store", "one")).ok();
        for context in contexts {
            place.file(&format!("{context}/d/3/3"), &format!("changed in {context}"));
        }
        let command = &command;
        let digests = std::thread::scope(|scope| {
            let builds = contexts
                .map(|context| scope.spawn(move || Ran::of(&mut command("store", context)).ok().digest()));
            builds.map(|build| build.join().expect("it built"))
        });
        for (context, digest) in contexts.iter().zip(digests) {
            assert_eq!(
                Ran::of(&mut command(&format!("store-{context}"), context)).ok().digest(),
                digest,
                "{context}"
            );
        }
        place.fsck();
    });
}
