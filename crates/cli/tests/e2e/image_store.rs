//! The local image store: listing, sizes, removing, pruning, looking into; with several processes at once.

use std::process::Command;

use kiln_testkit::tools::run;
use serde_json::Value;

use crate::place::{Place, Ran};
use crate::user::for_each_user;

fn json(ran: Ran) -> Value {
    let text = ran.ok().out();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn blobs(place: &Place) -> usize {
    std::fs::read_dir(place.path("store/blobs/sha256")).expect("a store").count()
}

/// Bytes of these paths on disk, each file once.
fn du(place: &Place, paths: &[String]) -> u64 {
    let mut du = Command::new("du");
    du.args(["-s", "-c", "-B1"]).args(paths).current_dir(place.path("store"));
    let text = run(&mut du);
    let last = text.lines().last().and_then(|line| line.split_whitespace().next());
    last.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Where an image's blobs and its layers' unpacked files are, by what its manifest says.
fn paths(place: &Place, name: &str) -> Vec<String> {
    let details = json(place.kiln(&["inspect", name]));
    let manifest = json(place.kiln(&["inspect", "--raw", name]));
    let root = details[0]["Descriptor"]["digest"].as_str().expect("a digest");
    let descriptors = manifest["layers"].as_array().expect("layers").iter().chain([&manifest["config"]]);
    let digests = descriptors.map(|found| found["digest"].as_str().expect("a digest")).chain([root]);
    let hex = |digest: &str| digest.split_once(':').expect("an algorithm").1.to_owned();
    let mut found: Vec<String> = digests.map(|digest| format!("blobs/sha256/{}", hex(digest))).collect();
    for diff_id in details[0]["RootFS"]["Layers"].as_array().expect("layers") {
        let id = hex(diff_id.as_str().expect("a diff id"));
        let dirs = ["full", "single"].map(|ids| format!("{ids}/layers/{id}"));
        found.extend(dirs.into_iter().filter(|dir| place.path("store").join(dir).exists()));
    }
    found
}

#[test]
fn sizes_are_what_is_on_disk_and_what_is_shared_is() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN seq 1 50000 > /base\n");
        place.build(&["-t", "base"]).ok();
        for (name, count) in [("one", 30_000), ("two", 60_000)] {
            place.dockerfile(&format!("FROM base\nRUN seq 1 {count} > /{name}\n"));
            place.build(&["-t", name]).ok();
        }
        // Afterwards all directories are unpacked ones, which manifests tell of.
        place.kiln(&["prune", "--all"]).ok();
        for name in ["base", "one", "two"] {
            place.run(name, "true");
        }
        let listed = json(place.kiln(&["images", "--json"]));
        let mut unique = 0;
        let mut all = Vec::new();
        for image in listed.as_array().expect("a list") {
            let name = image["name"].as_str().expect("a name");
            let mine = paths(&place, name);
            let others: Vec<String> = ["base", "one", "two"]
                .into_iter()
                .filter(|other| !name.contains(other))
                .flat_map(|other| paths(&place, other))
                .collect();
            let shared: Vec<String> = mine.iter().filter(|path| others.contains(path)).cloned().collect();
            let (size, common) = (image["room"]["size"].as_u64(), image["room"]["shared"].as_u64());
            assert_eq!(size, Some(du(&place, &mine)), "{image}");
            assert_eq!(common, Some(du(&place, &shared)), "{image}");
            let inspected = json(place.kiln(&["inspect", name]));
            assert_eq!(inspected[0]["Size"].as_u64(), size, "{inspected}");
            unique += size.unwrap_or_default() - common.unwrap_or_default();
            all.extend(mine);
        }
        all.sort();
        all.dedup();
        // There is nothing in the store but these images, so that its sum is theirs.
        let usage = json(place.kiln(&["du", "--json"]));
        let kinds = usage["blobs"].as_u64().zip(usage["layers"].as_u64());
        let dirs = ["blobs/sha256", "full/layers", "single/layers"].map(|dir| place.path("store").join(dir));
        let dirs = dirs.iter().filter_map(|dir| std::fs::metadata(dir).ok());
        let dirs: u64 = dirs.map(|found| std::os::unix::fs::MetadataExt::blocks(&found) * 512).sum();
        assert_eq!(kinds.map(|(blobs, layers)| blobs + layers), Some(du(&place, &all) + dirs), "{usage}");
        // What is unique to one goes with it.
        let before = du(&place, &all);
        for name in ["one", "two"] {
            place.kiln(&["rmi", name]).ok();
        }
        place.kiln(&["prune", "--all"]).ok();
        place.run("base", "true");
        let left = du(&place, &paths(&place, "base"));
        let base = json(place.kiln(&["images", "--json"]));
        assert_eq!(base[0]["room"]["size"].as_u64(), Some(left));
        assert_eq!(base[0]["room"]["shared"].as_u64(), Some(0), "alone, it shares nothing");
        assert!(left < before && unique > 0, "{left} of {before}, {unique}");
        place.fsck();
    });
}

#[test]
fn names_and_ids_are_removed_in_dockers_words() {
    for_each_user(|user| {
        let place = Place::with(user, "LABEL n=1\n");
        let digest = place.build(&["-t", "demo:1", "-t", "demo:2", "-t", "other"]).ok().digest();
        let id = &digest[7..19];
        assert_eq!(place.kiln(&["rmi", "demo:1"]).ok().out(), "Untagged: demo:1\n");
        place.kiln(&["rmi", id]).code(2).says(&["has 2 names: demo:2, other:latest", "--force"]);
        place
            .kiln(&["rmi", "demo:1", "nosuch", "demo:2"])
            .code(2)
            .says(&["no image demo:1", "no image nosuch"]);
        assert_eq!(place.kiln(&["images", "-q"]).ok().out().trim(), digest, "the last of the three went");
        assert_eq!(place.kiln(&["rmi", "-f", "nosuch"]).ok().out(), "");
        let before = blobs(&place);
        let gone = format!("Untagged: other:latest\nDeleted: {digest}\n");
        assert_eq!(place.kiln(&["rmi", id]).ok().out(), gone, "by id, with the one name that is left");
        assert!(blobs(&place) <= before - 2, "manifest and configuration are gone");
        place.kiln(&["inspect", id]).code(2);
        place.fsck();

        // By digest in a repository: the names of that repository.
        let digest = place.build(&["-t", "a/x:1", "-t", "b/x:1"]).ok().digest();
        place.kiln(&["rmi", &format!("c/x@{digest}")]).code(2);
        assert_eq!(place.kiln(&["rmi", &format!("a/x@{digest}")]).ok().out(), "Untagged: a/x:1\n");
        let both = format!("Untagged: b/x:1\nDeleted: {digest}\n");
        assert_eq!(place.kiln(&["image", "rm", "--force", &digest]).ok().out(), both);
        assert_eq!(place.kiln(&["images", "-aq"]).ok().out(), "");

        // Ids that begin alike are no id.
        let first = place.build(&["-t", "kept"]).ok().digest();
        place.kiln(&["rmi", &format!("sha256:{}", &first[7..11])]).ok();
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn what_lost_its_name_is_dangling_and_is_pruned() {
    for_each_user(|user| {
        let place = Place::with(user, "LABEL n=1\n");
        let first = place.build(&["-t", "demo"]).ok().digest();
        place.base("LABEL n=2\n");
        let second = place.build(&["-t", "demo"]).ok().digest();
        let list = |args: &[&str]| {
            let args = [&["images", "-q"], args].concat();
            place.kiln(&args).ok().out().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(list(&[]), [second.as_str()]);
        assert_eq!(list(&["--filter", "dangling=true"]), [first.as_str()]);
        assert_eq!(list(&["-a", "--filter", "label=n=1"]), [first.as_str()]);
        assert_eq!(list(&["-a"]).len(), 2);
        // Nothing is that old; and listing made nothing younger.
        let none = "Total reclaimed space: 0 B\n";
        assert_eq!(place.kiln(&["image", "prune", "--filter", "until=1h"]).ok().out(), none);
        assert_eq!(place.kiln(&["image", "prune", "--filter", "label=n=2"]).ok().out(), none);
        let record = Command::new("find")
            .args([&place.text("store/records/image"), &place.text("store/blobs"), "-type", "f"])
            .args(["-exec", "touch", "-d", "2 hours ago", "{}", "+"])
            .status()
            .expect("find");
        assert!(record.success());
        list(&["-a"]);
        let pruned = place.kiln(&["image", "prune", "--filter", "until=1h"]).ok().out();
        assert!(pruned.starts_with(&format!("Deleted: {first}\nTotal reclaimed space: ")), "{pruned}");
        assert!(!pruned.contains(": 0 B"), "{pruned}");
        assert_eq!(list(&["-a"]), [second.as_str()]);
        place.kiln(&["image", "prune", "--all"]).code(2).says(&["--filter until=AGE, or --force"]);
        // It was named just now.
        assert_eq!(place.kiln(&["image", "prune", "-a", "--filter", "until=1h"]).ok().out(), none);
        let pruned = place.kiln(&["image", "prune", "--all", "-f"]).ok().out();
        assert!(pruned.starts_with(&format!("Untagged: demo:latest\nDeleted: {second}\n")), "{pruned}");
        assert_eq!(list(&["-a"]), [] as [&str; 0]);
        place.fsck();
        // The build cache is another matter.
        assert_eq!(place.build(&[]).ok().count("CACHED"), 1);
    });
}

#[test]
fn lists_are_filtered_and_formatted() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/file", "x");
        for (name, label, epoch) in
            [("team/a:1", "web", "1000"), ("team/b:2", "db", "2000"), ("lone", "db", "3000")]
        {
            place.dockerfile(&format!("FROM scratch\nCOPY file /{label}{epoch}\nLABEL team={label}\n"));
            let mut build = place.build_command("store", &["-t", name]);
            Ran::of(build.env("SOURCE_DATE_EPOCH", epoch)).ok();
        }
        let names = |args: &[&str]| {
            let args = [&["images", "--format", "{{.Name}}"], args].concat();
            let mut names: Vec<String> = place.kiln(&args).ok().out().lines().map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(names(&[]), ["lone:latest", "team/a:1", "team/b:2"]);
        assert_eq!(names(&["team/*"]), ["team/a:1", "team/b:2"]);
        assert_eq!(
            names(&["--filter", "reference=*/a:?", "--filter", "reference=lone"]),
            ["lone:latest", "team/a:1"]
        );
        assert_eq!(names(&["--filter", "label=team=db"]), ["lone:latest", "team/b:2"]);
        assert_eq!(names(&["--filter", "label=team", "team/b"]), ["team/b:2"]);
        assert_eq!(names(&["--filter", "since=team/a:1"]), ["lone:latest", "team/b:2"]);
        assert_eq!(names(&["--filter", "before=lone", "--filter", "label=team=db"]), ["team/b:2"]);
        for (filter, words) in [
            ("dangling=perhaps", "write true or false"),
            ("colour=red", "there are dangling, reference"),
            ("since=nosuch", "no image nosuch"),
            ("reference=[", "pattern"),
        ] {
            place.kiln(&["images", "--filter", filter]).code(2).says(&[words]);
        }
        let table =
            place.kiln(&["images", "--format", "table {{.Repository}}\\t{{.Tag}}", "lone"]).ok().out();
        assert_eq!(table, "REPOSITORY   TAG\nlone         latest\n");
        let line = place.kiln(&["image", "ls", "--format", "json", "lone"]).ok().out();
        let line: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(
            (&line["Repository"], &line["CreatedAt"]),
            (&"lone".into(), &"1970-01-01T00:50:00Z".into())
        );
        place.kiln(&["images", "--format", "{{define .}}"]).code(2).says(&["define is not supported"]);
        place
            .kiln(&["images", "--format", "{{.Nosuch}}"])
            .code(2)
            .says(&["there is no field .Nosuch; there are"]);
        let plain = place.kiln(&["images", "--digests", "--no-trunc"]).ok().out();
        assert!(
            plain.lines().next().is_some_and(|line| line.contains("DIGEST") && line.contains("SHARED")),
            "{plain}"
        );
    });
}

#[test]
fn an_image_is_looked_into_and_its_documents_are_byte_for_byte() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "ENV from=image\nWORKDIR /srv\nRUN echo x > /x\nUSER 5\nEXPOSE 80\nLABEL who=me org.x=y\nCMD [\"sh\"]\n",
        );
        let digest = place.build(&["-t", "demo", "--iidfile", "id"]).ok().digest();
        let raw = place.kiln(&["inspect", "--raw", "demo"]).ok().stdout;
        assert_eq!(kiln_core::Digest::of(&raw).to_string(), digest);
        let id = place.read("id");
        let config = place.kiln(&["inspect", "--raw", "--config", "demo"]).ok().stdout;
        assert_eq!(kiln_core::Digest::of(&config).to_string(), id);
        let details = json(place.kiln(&["inspect", "demo", &digest[7..30]]));
        assert_eq!(details[0], details[1], "by name and by id");
        assert_eq!(details[0]["Id"], id.as_str());
        assert_eq!(details[0]["RepoTags"], serde_json::json!(["demo:latest"]));
        assert_eq!(details[0]["RepoDigests"], serde_json::json!([format!("demo@{digest}")]));
        assert_eq!(details[0]["Config"]["User"], "5");
        let show = |format: &str| place.kiln(&["inspect", "--format", format, "demo"]).ok().out();
        assert_eq!(
            show("{{.Config.WorkingDir}} {{join .Config.Cmd \" \"}} {{.Config.Labels.who}}"),
            "/srv sh me\n"
        );
        assert_eq!(show("{{index .Config.Labels \"org.x\"}}{{.Config.Entrypoint}}"), "y<nil>\n");
        assert_eq!(show("{{json .Config.ExposedPorts}}"), "{\"80/tcp\":{}}\n");
        place.kiln(&["inspect", "--platform", "linux/s390x", "demo"]).code(2).says(&["linux/s390x"]);
        place.kiln(&["inspect", "nosuch"]).code(2).says(&["there is no image nosuch"]);

        // The base's steps first, in the end.
        place.dockerfile("FROM demo\nUSER 0\nENV more=yes\nRUN echo y > /y\n");
        place.build(&["-t", "more"]).ok();
        let steps = json(place.kiln(&["history", "--json", "more"]));
        let steps: Vec<(String, bool)> = steps
            .as_array()
            .expect("a list")
            .iter()
            .map(|step| (step["created_by"].as_str().unwrap_or_default().to_owned(), step["layer"].is_null()))
            .collect();
        assert!(steps[0].0.contains("echo y > /y") && !steps[0].1, "{steps:?}");
        assert!(steps[1].0.contains("ENV more=yes") && steps[1].1, "{steps:?}");
        let base: Vec<bool> = steps.iter().skip(2).map(|(_, empty)| *empty).collect();
        assert!(steps.last().is_some_and(|(by, empty)| by.contains("COPY bin /bin") && !empty), "{steps:?}");
        assert_eq!(base.iter().filter(|empty| !**empty).count(), 3, "COPY, WORKDIR and RUN: {steps:?}");
        let manifest = json(place.kiln(&["inspect", "--raw", "more"]));
        let sizes = place.kiln(&["history", "--human=false", "--format", "{{.Size}}", "more"]).ok().out();
        let sum: u64 = sizes.lines().map(|line| line.parse::<u64>().expect("a number")).sum();
        let layers = manifest["layers"].as_array().expect("layers").iter();
        assert_eq!(sum, layers.filter_map(|layer| layer["size"].as_u64()).sum::<u64>());
        let table = place.kiln(&["history", "more"]).ok().out();
        assert!(table.starts_with("LAYER ") && table.contains("<empty>"), "{table}");
        let ids = place.kiln(&["image", "history", "-q", "--no-trunc", "more"]).ok().out();
        assert!(
            manifest["layers"]
                .as_array()
                .expect("layers")
                .iter()
                .all(|layer| { layer["digest"].as_str().is_some_and(|digest| ids.contains(digest)) })
        );
        place.fsck();
    });
}

#[test]
fn processes_that_name_remove_and_prune_do_not_break_builds() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo start\n");
        place.build(&["-t", "base"]).ok();
        // Each builds, takes names away that others give, and prunes, all at once; what a build named is whole or gone.
        let started: Vec<_> = (0..3)
            .map(|process| {
                let script = format!(
                    "for round in 1 2 3; do\n\
                       ./kiln build -q -t shared -t mine:{process} --build-arg n={process}$round context >/dev/null || exit 1\n\
                       ./kiln tag mine:{process} other:{process} || exit 7\n\
                       ./kiln rmi -f shared other:{process} >/dev/null || exit 2\n\
                       ./kiln image prune >/dev/null || exit 3\n\
                       ./kiln prune --all >/dev/null || exit 4\n\
                       ./kiln images -a >/dev/null || exit 5\n\
                       ./kiln run --rm mine:{process} true || exit 6\n\
                     done"
                );
                place.spawn(&mut place.as_user("/bin/sh", "store", &["-c", &script]))
            })
            .collect();
        for process in started {
            process.wait().ok();
        }
        for process in 0..3 {
            let out = place.run(&format!("mine:{process}"), "echo here");
            assert_eq!(out, "here\n");
        }
        assert_eq!(place.run("base", "echo here"), "here\n");
        place.fsck();
        place.kiln(&["rmi", "mine:0", "mine:1", "mine:2", "base"]).code(0);
        place.kiln(&["image", "prune", "-a", "--force"]).ok();
        place.kiln(&["prune", "--all"]).ok();
        assert_eq!(blobs(&place), 0, "nothing is left when nothing has a name");
        place.fsck();
        place.is_quiet();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}
