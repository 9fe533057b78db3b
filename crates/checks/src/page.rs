//! The pages of kiln's own rules, so that they can be read without the source.

use kiln_dockerfile::Rule;

/// Returns the page of one of kiln's own rules, as Markdown.
pub const fn page(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::CacheMountDefeated => include_str!("../../../docs/checks/CacheMountDefeated.md"),
        Rule::CacheMountMissing => include_str!("../../../docs/checks/CacheMountMissing.md"),
        Rule::CacheMountNotLocked => include_str!("../../../docs/checks/CacheMountNotLocked.md"),
        Rule::CacheMountNotWritable => include_str!("../../../docs/checks/CacheMountNotWritable.md"),
        Rule::CacheMountOverInstall => include_str!("../../../docs/checks/CacheMountOverInstall.md"),
        Rule::CacheMountUnused => include_str!("../../../docs/checks/CacheMountUnused.md"),
        Rule::CopyBeforeInstall => include_str!("../../../docs/checks/CopyBeforeInstall.md"),
        Rule::DockerCleanActive => include_str!("../../../docs/checks/DockerCleanActive.md"),
        Rule::EmptyWildcard => include_str!("../../../docs/checks/EmptyWildcard.md"),
        Rule::SecretCopiedToImage => include_str!("../../../docs/checks/SecretCopiedToImage.md"),
        Rule::SecretInCommand => include_str!("../../../docs/checks/SecretInCommand.md"),
        Rule::VariableShadowed => include_str!("../../../docs/checks/VariableShadowed.md"),
        Rule::VolatileArgTooEarly => include_str!("../../../docs/checks/VolatileArgTooEarly.md"),
        _ => return None,
    })
}
