//! How many requests the cache's repository gets: the figures of docs/remote-cache.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kiln_testkit::registry::FakeRegistry;

use super::{build, from, spawn, to};
use crate::place::{Place, Ran};
use crate::user::for_each_user;

const STEPS: usize = 20;

/// Requests to the cache's repository since the last look, by kind: `GET manifests 3`.
fn asked(registry: &FakeRegistry) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for line in registry.lines() {
        let Some((method, rest)) = line.split_once(" /v2/cache/") else { continue };
        let what = rest.split(['/', ' ', '?']).next().unwrap_or_default();
        *kinds.entry(format!("{method} {what}")).or_default() += 1;
    }
    kinds.iter().fold(String::new(), |mut all, (kind, count)| {
        let _ = write!(all, "{}{kind} {count}", if all.is_empty() { "" } else { ", " });
        all
    })
}

fn output() -> [String; 2] {
    ["-o".to_owned(), "type=cacheonly".to_owned()]
}

#[test]
fn buildkit_2804_existence_is_asked_once_for_all_that_is_in_the_list() {
    for_each_user(|user| {
        let steps = |count: usize| (1..count).map(|n| format!("RUN echo {n} > /{n}\n")).collect::<String>();
        let place = Place::with(user, &steps(STEPS));
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:main", registry.host());
        let max = format!("type=registry,ref={cache},mode=max");
        let ask = |machine: &str, args: &[[String; 2]]| -> (Ran, String) {
            registry.lines();
            let ran = build(&place, machine, &[args, &[output()]].concat()).ok();
            (ran, asked(&registry))
        };
        // New: of each step a layer and a record; of all the empty configuration, what is said of files, and the list.
        let (ran, requests) = ask("a", &[to(&max)]);
        assert_eq!(ran.count("CACHED"), 0, "{ran}");
        assert_eq!(
            requests,
            "GET manifests 1, HEAD blobs 22, HEAD manifests 22, POST blobs 22, PUT blobs 22, PUT manifests 22"
        );
        // The same again leaves nothing, and looks whether the layers are there that it could put back.
        assert_eq!(ask("a", &[to(&max)]).1, "GET manifests 1, HEAD blobs 20");
        assert_eq!(ask("a", &[from(&cache), to(&max)]).1, "GET manifests 1, HEAD blobs 20");
        // Elsewhere all hit.
        let (ran, requests) = ask("b", &[from(&cache), to(&max)]);
        assert_eq!((ran.count("CACHED"), requests.as_str()), (STEPS, "GET manifests 1"), "{ran}");
        // Without a list under the tag each key is asked for.
        let other = format!("{}/cache:other", registry.host());
        let (ran, requests) = ask("c", &[from(&other)]);
        assert_eq!((ran.count("CACHED"), requests), (STEPS, format!("GET manifests {}", STEPS + 1)), "{ran}");
        // One step more: a miss, whose layer, record and list are left. Its files are nobody's before they are needed.
        place.base(&steps(STEPS + 1));
        let (ran, requests) = ask("a", &[from(&cache), to(&max)]);
        assert_eq!(ran.count("CACHED"), STEPS, "{ran}");
        assert_eq!(
            requests,
            "GET manifests 2, HEAD blobs 21, HEAD manifests 2, POST blobs 1, PUT blobs 1, PUT manifests 2"
        );
        // None known, for the first step is another.
        place.file("context/bin/more", "more");
        let (ran, requests) = ask("d", &[from(&cache)]);
        assert_eq!((ran.count("CACHED"), requests), (0, format!("GET manifests {}", STEPS + 2)), "{ran}");
    });
}

/// <https://github.com/moby/buildkit/issues/2276>, <https://github.com/docker/build-push-action/issues/545>: all of a cache with many layers was
/// exported at the end, which took minutes. FIELD P23.
#[test]
fn buildkit_2276_what_a_step_left_is_sent_while_the_next_one_runs() {
    for_each_user(|user| {
        let gate = "RUN --mount=type=cache,id=g,target=/g";
        let place = Place::with(user, &format!("{gate} mkfifo /g/p\n"));
        build(&place, "a", &[]).ok();
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        place.base(&format!("RUN echo first > /first\n{gate} cat /g/p\n"));
        let running = spawn(&place, "a", &[to(&cache)]);
        // Those of COPY and of the first RUN. The second RUN ends when somebody writes to the FIFO.
        let mut left = 0;
        while left < 2 {
            left += registry
                .lines()
                .iter()
                .filter(|line| line.starts_with("PUT /v2/cache/manifests/kiln-"))
                .count();
            std::thread::yield_now();
        }
        place.base(&format!("{gate} echo go > /g/p\n"));
        build(&place, "a", &[]).ok();
        running.wait().ok().says(&["3 results, 3 of them new"]);
    });
}
