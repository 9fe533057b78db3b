//! libFuzzer's entry: `KILN_FUZZ=parse kiln-fuzz CORPUS...`. <https://llvm.org/docs/LibFuzzer.html>

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("KILN_FUZZ").unwrap_or_default();
    let found = kiln_fuzz::TARGETS.iter().find(|(name, _)| *name == wanted);
    let names: Vec<&str> = kiln_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    found.unwrap_or_else(|| panic!("KILN_FUZZ says which target: one of {}", names.join(", "))).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (*TARGET)(data));
