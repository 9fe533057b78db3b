//! Base images of a registry.

use kiln_testkit::image::TestImage;
use kiln_testkit::registry::FakeRegistry;

use crate::place::{Place, text_image};
use crate::user::for_each_user;

fn base() -> TestImage {
    text_image(&[("etc/one", "one"), ("etc/two", "two")])
}

#[test]
fn a_mirror_serves_names_without_a_host_and_each_blob_once() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        registry.put("library/base", "1", &base());
        let mirror = format!("docker.io=http://{}", registry.host());
        let place = Place::new(user);
        place.dockerfile("FROM base:1 AS one\nCOPY bin /bin\nRUN grep one /etc/one\nFROM base:1\nCOPY --from=one /etc/two /two\nCOPY bin /bin\nRUN grep two /two\n");
        place.build(&["--registry-mirror", &mirror]).ok();
        let asked = registry.lines();
        let mut blobs: Vec<_> =
            asked.iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).collect();
        let all = blobs.len();
        blobs.sort();
        blobs.dedup();
        assert_eq!(all, blobs.len(), "a blob was fetched twice: {asked:#?}");
        // Nothing to do: the tag is looked at once, and no byte of the image is read.
        let ran = place.build(&["--registry-mirror", &mirror]).ok();
        let asked = registry.lines();
        assert!(asked.len() == 1 && asked[0].starts_with("HEAD"), "{asked:#?}\n{ran}");
        // Everything again, but what was fetched is there.
        place.build(&["--registry-mirror", &mirror, "--no-cache"]).ok();
        let asked = registry.lines();
        assert!(!asked.iter().any(|line| line.contains("/blobs/")), "{asked:#?}");
        place.fsck();
    });
}

#[test]
fn a_fully_cached_build_downloads_no_layer_even_where_it_is_gone() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        registry.put("library/base", "1", &base());
        let mirror = format!("docker.io=http://{}", registry.host());
        let place = Place::new(user);
        // The layer is never needed as files: nothing runs on it.
        place.dockerfile("FROM base:1\nENV a=b\n");
        place.build(&["--registry-mirror", &mirror, "-t", "one"]).ok();
        registry.lines();
        place.build(&["--registry-mirror", &mirror, "-t", "two"]).ok();
        let asked = registry.lines();
        assert!(!asked.iter().any(|line| line.starts_with("GET")), "{asked:#?}");
        let images = place.kiln(&["images"]).ok().out();
        assert!(images.contains("one") && images.contains("two"), "{images}");
    });
}

#[test]
fn a_damaged_layer_is_refused_and_not_kept() {
    use kiln_testkit::registry::Fault;
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let image = base();
        registry.put("library/base", "1", &image);
        let layer = image.image.layers[0].digest.to_string();
        registry.fault(layer, 100, Fault::Corrupt);
        let place = Place::new(user);
        place.dockerfile("FROM base:1\nCOPY bin /bin\nRUN true\n");
        let mirror = format!("docker.io=http://{}", registry.host());
        place.build(&["--registry-mirror", &mirror]).code(4);
        place.fsck();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}
