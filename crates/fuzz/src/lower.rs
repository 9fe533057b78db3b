//! The lowering: whatever parses is planned or refused with its place, the same way each time, whole.

use kiln_dockerfile::{Severity, parse};
use kiln_frontend::{LowerOptions, lower_offline, print};

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, diagnostics) = parse(text);
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return;
    }
    let options = LowerOptions::default();
    let plan = match lower_offline(&file, &options) {
        Ok(plan) => plan,
        Err(diagnostics) => {
            let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
            assert!(errors.count() > 0, "a refusal has a reason");
            for diagnostic in diagnostics {
                let span = diagnostic.span;
                assert!(text.get(span.start..span.end).is_some(), "{diagnostic:?} points into the text");
            }
            return;
        }
    };
    for diagnostic in &plan.diagnostics {
        let span = diagnostic.span;
        assert!(text.get(span.start..span.end).is_some(), "{diagnostic:?} points into the text");
    }
    for (_, step) in plan.graph.iter() {
        for input in step.op.inputs() {
            assert!(plan.graph.get(input).is_some(), "{} has its inputs", step.info.title);
        }
    }
    for image in &plan.images {
        assert!(image.rootfs.is_none_or(|step| plan.graph.get(step).is_some()));
    }
    let again = lower_offline(&file, &options).expect("what was planned once is planned again");
    assert_eq!(print::plan(&plan), print::plan(&again));
}
