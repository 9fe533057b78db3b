//! Every input that was worth keeping, and every Dockerfile of the tables, once more through its target.

use std::path::{Path, PathBuf};

#[test]
fn what_was_kept_still_holds() {
    for (name, check) in kiln_fuzz::TARGETS {
        let inputs = files(&testdata().join("fuzz").join(name));
        assert!(inputs.len() > 50, "{name} has {} inputs", inputs.len());
        inputs.iter().for_each(|input| try_one(input, *check));
    }
}

#[test]
fn dockerfiles_of_the_tables_hold() {
    let mut found = 0;
    for path in ["parse", "lower", "checks", "plan"].into_iter().flat_map(|dir| files(&testdata().join(dir)))
    {
        if path.file_name().is_some_and(|name| name == "Dockerfile") {
            for (_, check) in kiln_fuzz::TARGETS.iter().filter(|(name, _)| matches!(*name, "parse" | "lower"))
            {
                try_one(&path, *check);
            }
            found += 1;
        }
    }
    assert!(found > 40, "{found} Dockerfiles");
}

fn try_one(path: &Path, check: fn(&[u8])) {
    let input = std::fs::read(path).expect("an input can be read");
    let held = std::panic::catch_unwind(|| check(&input)).is_ok();
    assert!(held, "it does not hold for {}", path.display());
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(files(&path));
        } else {
            out.push(path);
        }
    }
    out.sort();
    out
}
