//! Whole builds for architectures that Debian has no small programs of: each with the program of `runtime/data/emulators`, which
//! ends with the number of its arguments as its exit code.

use std::fs;
use std::path::Path;

use kiln_testkit::tools::tool;
use serde_json::Value;

use crate::place::Place;
use crate::user::for_each_user;

const ARCHITECTURES: [&str; 4] = ["arm", "riscv64", "ppc64le", "s390x"];

/// Makes the program: an ELF header, one segment, the table's code (elf(5)).
fn program(architecture: &str) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let row = include_str!("../../../../runtime/data/emulators")
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|row| row[0] == architecture)
        .expect("a row of the table");
    let bytes = |hex: &str| -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(digit).collect()
    };
    let flags = u64::from_str_radix(row[3], 16).expect("a number");
    let (magic, code) = (bytes(row[1]), bytes(row[4]));
    let (wide, big) = (magic[4] == 2, magic[5] == 2);
    let (word, header, segment) = if wide { (8, 64_u64, 56_u64) } else { (4, 52, 32) };
    let (begin, end) = (header + segment, header + segment + code.len() as u64);
    let mut out = magic;
    let mut put = |size: usize, values: &[u64]| {
        for value in values {
            let bytes = if big {
                value.to_be_bytes()[8 - size..].to_vec()
            } else {
                value.to_le_bytes()[..size].to_vec()
            };
            out.extend(bytes);
        }
    };
    put(4, &[1]);
    put(word, &[BASE + begin, header, 0]);
    put(4, &[flags]);
    put(2, &[header, segment, 1, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    put(4, if wide { &[1, 5] } else { &[1] });
    put(word, &[0, BASE, BASE, end, end]);
    put(4, if wide { &[] } else { &[5] });
    put(word, &[0x1_0000]);
    out.extend(code);
    out
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
}

#[test]
fn steps_of_four_architectures_run_in_one_build_and_give_one_index() {
    if ARCHITECTURES.iter().any(|name| tool(&format!("qemu-{name}-static")).is_none()) {
        return;
    }
    for_each_user(|user| {
        let place = Place::new(user);
        for name in ARCHITECTURES {
            place.directory(&format!("context/{name}"));
            fs::write(place.path(&format!("context/{name}/program")), program(name)).expect("it is ours");
        }
        let dockerfile = |arguments: &str| {
            format!(
                "FROM scratch\nARG TARGETARCH\nCOPY --chmod=755 $TARGETARCH/program /program\nRUN [\"/program\"{arguments}]\n"
            )
        };
        place.dockerfile(&dockerfile(""));
        let all = format!("--platform={}", ARCHITECTURES.map(|name| format!("linux/{name}")).join(","));
        let ran = place.build(&[&all, "-o", "type=oci,dest=image,tar=false"]).ok();
        // Each has run: the second time it is there.
        assert_eq!(ran.count("CACHED"), 0, "{ran}");
        assert_eq!(place.build(&[&all]).ok().count("CACHED"), 2 * ARCHITECTURES.len());
        let blob = |digest: &Value| {
            json(&place.path("image/blobs").join(digest.as_str().expect("a digest").replace(':', "/")))
        };
        let index = blob(&json(&place.path("image/index.json"))["manifests"][0]["digest"]);
        let manifests = index["manifests"].as_array().expect("an index");
        assert_eq!(manifests.len(), ARCHITECTURES.len(), "{index}");
        for (entry, name) in manifests.iter().zip(ARCHITECTURES) {
            assert_eq!(entry["platform"]["architecture"], name, "{index}");
            let config = blob(&blob(&entry["digest"])["config"]["digest"]);
            assert_eq!((&config["architecture"], &config["os"]), (&Value::from(name), &Value::from("linux")));
        }
        // That it is the program which ran, and not something that always ends well.
        place.dockerfile(&dockerfile(", \"a\", \"b\""));
        for name in ARCHITECTURES {
            place.build(&[&format!("--platform=linux/{name}")]).code(1).says(&["exit code 2"]);
        }
        place.is_quiet();
    });
}
