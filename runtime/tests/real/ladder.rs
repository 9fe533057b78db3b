//! Which rung it is, and what is said when there is none.

use kiln_runtime::{EnterError, IdMode, Rung as Found};

use crate::support::{Place, Rung, rungs};

#[test]
fn each_user_gets_its_rung() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let output = place.runner(&["ids"]).output().unwrap();
        let ids: IdMode =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{rung:?} {output:?}"));
        match rung {
            Rung::Root => assert_eq!(ids, IdMode::Root),
            Rung::Single => assert_eq!(ids, IdMode::Single),
            Rung::Subordinate => {
                let IdMode::Subordinate { uids, gids } = &ids else { panic!("{ids:?}") };
                assert_eq!((uids[0].outside, gids[0].outside), rung.ids());
                assert!(uids.iter().map(|range| range.count).sum::<u32>() > 65_536, "{ids:?}");
            }
            Rung::Caller => {}
        }
        let single = place.runner(&["ids"]).env("KILN_TEST_SINGLE_ID", "1").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&single.stdout), "\"Single\"\n", "{single:?}");
    }
}

#[test]
fn a_namespace_made_by_others_is_used() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let spec = place.write("spec.json", &place.spec("cat /proc/self/uid_map | wc -l; id -u"));
        let mut cases = vec![(vec!["--map-root-user"], "\"Single\"\n")];
        if rung == Rung::Subordinate {
            cases.push((vec!["--map-root-user", "--map-auto"], "\"Mapped\"\n"));
        }
        for (map, expected) in cases {
            let unshared = |args: &[&str]| {
                let mut command = rung.command("unshare");
                command
                    .arg("--user")
                    .args(&map)
                    .arg(place.program())
                    .args(args)
                    .current_dir("/")
                    .output()
                    .unwrap()
            };
            let ids = unshared(&["ids"]);
            assert_eq!(String::from_utf8_lossy(&ids.stdout), expected, "{rung:?} {map:?} {ids:?}");
            place.clear();
            crate::support::Ran::of(rung, unshared(&["run", &spec])).ok();
        }
    }
}

#[test]
fn missing_tool_falls_back_and_says_so() {
    for &rung in rungs() {
        if rung != Rung::Subordinate {
            continue;
        }
        let place = Place::new(rung);
        let mut command = rung.command("/usr/bin/env");
        command.arg("PATH=/nowhere").arg(place.program()).args(["probe", "/"]);
        let output = command.output();
        let found: Vec<Found> = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        assert!(found[0].reason.contains("newuidmap is not found"), "{found:?}");
        assert_eq!(found[0].raise.as_deref(), Some("sudo apt-get install uidmap"));
    }
}

#[test]
fn probe_tells_every_part() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let store = place.path("upper/not/there/yet");
        let output = place.runner(&["probe", store.to_str().unwrap()]).output().unwrap();
        let found: Vec<Found> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let parts: Vec<&str> = found.iter().map(|part| part.what.as_str()).collect();
        let always = ["user ids", "isolation", "file system", "proc", "network", "limits"];
        assert_eq!(parts.get(..always.len()), Some(&always[..]), "{rung:?}");
        // Emulators may be missing.
        assert!(
            found.iter().take(always.len()).all(|part| part.chosen.is_some() && !part.reason.is_empty()),
            "{rung:?} {found:?}"
        );
        assert_eq!(place.upper(), Vec::<String>::new());
    }
}

#[test]
fn threads_are_refused() {
    for &rung in rungs() {
        let output = Place::new(rung).runner(&["threaded"]).output().unwrap();
        let error: EnterError = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(error, EnterError::Threads { threads: 2 });
    }
}
