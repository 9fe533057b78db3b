//! `kiln layers`, and limits on sizes.

use serde_json::Value;

use crate::place::Place;
use crate::user::for_each_user;

const LAYERS: &str = "\
RUN mkdir -p /var/lib/apt/lists /root/.cache/pip /data && seq 1 20000 > /var/lib/apt/lists/x \\
    && seq 1 10000 > /root/.cache/pip/y && echo keep > /keep && seq 1 5000 > /data/a && ln /data/a /data/b && ln -s a /data/c
RUN rm /var/lib/apt/lists/x /data/b && echo changed > /keep
RUN rm -r /data && mkdir /data && echo new > /data/new
LABEL empty=layer
";

fn report(place: &Place) -> Value {
    let text = place.kiln(&["layers", "--json", "demo"]).ok().out();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn bytes(last: u64) -> u64 {
    (1..=last).map(|number| number.to_string().len() as u64 + 1).sum()
}

#[test]
fn what_layers_do_is_shown_from_files_and_from_blobs() {
    for_each_user(|user| {
        let place = Place::with(user, LAYERS);
        place.build(&["-t", "demo"]).ok();
        let of_files = report(&place);
        let layer = |number: usize, field: &str| of_files["layers"][number - 1][field].clone();
        let number = |index: usize, field: &str| layer(index, field).as_u64().expect("a number");
        let counts =
            |index: usize| ["added", "changed", "deleted", "wasted"].map(|field| number(index, field));
        let (apt, pip, data) = (bytes(20_000), bytes(10_000), bytes(5_000));
        assert_eq!(number(2, "unpacked"), apt + pip + data + 5);
        assert_eq!(counts(2), [6, 0, 0, apt + data + 5], "{of_files}");
        assert_eq!(counts(3), [0, 1, 2, 0], "{of_files}");
        assert_eq!(counts(4), [1, 0, 2, 0], "{of_files}");
        let hidden: Vec<(&str, u64)> = of_files["layers"][1]["hidden"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|file| (file["path"].as_str().expect("a path"), file["by"].as_u64().expect("a layer")))
            .collect();
        assert_eq!(hidden, [("/var/lib/apt/lists/x", 3), ("/data/a", 4), ("/keep", 3)]);
        let caches: Vec<(&str, u64)> = of_files["layers"][1]["caches"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|left| (left["mount"].as_str().expect("a flag"), left["bytes"].as_u64().expect("bytes")))
            .collect();
        assert_eq!(
            caches,
            [
                ("--mount=type=cache,target=/var/lib/apt/lists,sharing=locked", apt),
                ("--mount=type=cache,target=/root/.cache/pip", pip)
            ]
        );
        let sum = |field: &str| of_files[field].as_u64().expect("a number");
        assert_eq!(sum("unpacked") - sum("wasted"), sum("visible"));
        // What a process sees, but for what is mounted there.
        let seen = place.run("demo", "cat /keep /data/new /root/.cache/pip/y /bin/busybox | wc -c");
        assert_eq!(seen.trim().parse(), Ok(sum("visible")));

        // The same when there is nothing but blobs.
        place.kiln(&["prune", "--all"]).ok();
        assert_eq!(report(&place), of_files);
        // And when they were unpacked from them.
        place.run("demo", "true");
        assert_eq!(report(&place), of_files);

        let text = place.kiln(&["layers", "demo"]).ok().out();
        for words in
            ["WASTED", "RUN /bin/sh -c rm -r /data", "layer 2 wastes", "layer 2 holds", "what pip fetched"]
        {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
        let one = place.kiln(&["layers", "--layer", "2", "--top", "1", "demo"]).ok().out();
        assert!(one.contains("/var/lib/apt/lists/x\n") && !one.contains("   /data/a\n"), "{one}");
        place.kiln(&["layers", "--layer", "9", "demo"]).code(2).says(&["layers 1 to 4"]);
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn too_large_an_image_is_refused_and_the_line_is_named() {
    for_each_user(|user| {
        let place = Place::with(user, LAYERS);
        place.file("context/small", "x");
        let ran = place.build(&["-t", "demo", "--max-layer-size", "20k", "--max-image-size", "100m"]).code(1);
        ran.says(&[
            "Dockerfile:3",
            ">>> RUN mkdir -p /var/lib/apt",
            "linux/",
            "layer 2 of 4",
            "/var/lib/apt/lists/x",
            "layers 1, 2 have more than --max-layer-size 20.5 kB each",
            "RUN --mount=type=cache",
        ]);
        assert_eq!(place.kiln(&["images", "-aq"]).ok().out(), "", "nothing was kept");
        let ran = place.build(&["-o", "type=local,dest=files", "--max-image-size", "100k"]).code(1);
        ran.says(&["the image has ", "more than --max-image-size 102.4 kB", "layer 1 of 4", "/bin/busybox"]);
        assert!(!place.path("files").exists());
        place.build(&["--max-image-size", "0"]).code(2).says(&["--max-image-size 0", "an image of no size"]);
        place.build(&["-t", "demo", "--max-layer-size", "50m", "--max-image-size", "50m"]).ok();
        let ran = place.kiln(&["layers", "--max-layer-size", "20k", "demo"]).code(1);
        assert!(ran.out().contains("WASTED"), "the table comes first: {ran}");
        ran.says(&["layer 2 of 4", "RUN /bin/sh -c mkdir -p", "more than --max-layer-size"]);
        place.kiln(&["layers", "--max-image-size", "50m", "demo"]).ok();
        // A base's layers count, too.
        place.dockerfile("FROM demo\nCOPY small /small\n");
        place
            .build(&["--max-layer-size", "20k"])
            .code(1)
            .says(&["layer 2 of 5", "layers 1, 2 have more than"]);
        place.fsck();
    });
}
