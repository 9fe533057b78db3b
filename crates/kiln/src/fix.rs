//! A Dockerfile with all fixes that its findings bring.

use kiln_dockerfile::Diagnostic;

use crate::{CheckRequest, check};

/// A Dockerfile after its fixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The text; what no fix touches is there byte for byte.
    pub text: String,
    /// The findings whose fixes were applied, in the order of the rounds.
    pub applied: Vec<Diagnostic>,
}

/// Applies the fixes of what [`check`] reports, until none is left. What is skipped is not fixed, and a file that cannot
/// be built stays as it is.
pub fn fix(request: &CheckRequest) -> Fixed {
    let mut request = request.clone();
    let text = std::mem::take(&mut request.plan.text);
    let (text, applied) = kiln_checks::fix_all(&text, |text| {
        text.clone_into(&mut request.plan.text);
        let checked = check(&request);
        if checked.is_broken() {
            return Vec::new();
        }
        checked.findings.into_iter().map(|one| one.diagnostic).collect()
    });
    Fixed { text, applied }
}
