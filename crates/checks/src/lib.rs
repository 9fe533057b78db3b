//! kiln's own checks: advice on Dockerfiles that can be built; pure.
//!
//! [`findings`] says what cache mounts a file lacks or wastes, and what else makes builds slow or unsafe. Each finding
//! names its rule (docs/checks/), and many bring the change of the text that ends it: [`apply`] makes it.

mod advice;
mod fix;
mod managers;
mod mend;
mod page;
mod path;
mod rules;
mod sarif;
mod shell;
mod survey;

pub use fix::{apply, fix_all};
pub use mend::add_fixes;
pub use page::page;
pub use sarif::{CheckedFile, sarif};

use kiln_dockerfile::{Diagnostic, Dockerfile};
use kiln_frontend::{ImageTable, LowerOptions};

use survey::Survey;

/// Returns what kiln's own checks say of a file that parsed without errors, in the order of the text.
///
/// `images` may lack any image: what is then not known is assumed as the official images have it, or not spoken of. All
/// stages are looked at. Nothing is left out here: `# check=skip=` is the caller's.
pub fn findings(
    text: &str,
    file: &Dockerfile,
    options: &LowerOptions,
    images: &ImageTable,
) -> Vec<Diagnostic> {
    let survey = Survey::of(text, file, options, images);
    let mut found = Vec::new();
    for rule in rules::ALL {
        rule(&survey, &mut found);
    }
    rules::once_each_mount(&mut found);
    found.sort_by_key(|one| (one.span.start, one.rule.map(kiln_dockerfile::Rule::name)));
    found
}
