//! Names without a registry: which images they may be, and the first of those that is there.
//!
//! Containers' files decide where they say something, as for podman
//! (<https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md>, "short-name aliasing"); else they
//! are docker's. Of several registries the first counts that has the image. One that does not answer ends it: an image of
//! the same name from the next one would be another image, on a bad day only.

use kiln_core::ImageRef;

use crate::{Attempt, RegistryClient, RegistryError, ShortNames};

/// What a name may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The images, in the order in which they are looked for; each with its registry. At least one.
    pub candidates: Vec<ImageRef>,
    /// The file that decided; none where the name itself does, or docker's rule.
    pub decided_by: Option<String>,
}

/// Something that was had of one of the images that a name may mean.
#[derive(Debug, Clone)]
pub struct Had<T> {
    /// What.
    pub what: T,
    /// Of which image.
    pub image: ImageRef,
    /// Those registries that were asked before, and do not have it.
    pub passed: Vec<Attempt>,
}

impl Meaning {
    /// The name means itself.
    fn itself(name: &ImageRef) -> Self {
        Self { candidates: vec![name.clone().in_full()], decided_by: None }
    }

    /// Returns how the look-up is called where people see it: the image, or where it is looked for, and who says so if
    /// that is not what the name says.
    pub fn describe(&self, name: &ImageRef) -> String {
        match (&self.candidates[..], &self.decided_by) {
            ([one], Some(from)) if one != name => format!("{one} ({} by {from})", name.familiar()),
            ([one], _) => one.to_string(),
            (several, from) => {
                let all: Vec<String> = several.iter().map(ToString::to_string).collect();
                format!("{} (by {})", all.join(" or "), from.as_deref().unwrap_or_default())
            }
        }
    }
}

impl RegistryClient {
    /// Returns which images a name may mean. Reads files for a name without a registry only.
    ///
    /// # Errors
    /// A file cannot be understood, names what is no image, or leaves it to somebody to choose.
    pub fn meaning(&self, name: &ImageRef) -> Result<Meaning, RegistryError> {
        if !name.short.0 || self.session.config.short_names == ShortNames::Docker {
            return Ok(Meaning::itself(name));
        }
        let typed = name.repository.strip_prefix("library/").unwrap_or(&name.repository);
        let conf = &self.session.hosts()?.containers;
        // `library/x` is what docker makes of `x`; whichever was typed may be in the files.
        let found = conf.short(typed).or_else(|| conf.short(&name.repository));
        let Some(found) = found else { return Ok(Meaning::itself(name)) };
        let mut candidates: Vec<ImageRef> = Vec::new();
        for text in &found.value {
            let image = full(text, name).map_err(|reason| RegistryError::Configuration {
                file: found.from.clone().into(),
                reason: format!("{text:?} for {typed:?} {reason}"),
            })?;
            if !candidates.contains(&image) {
                candidates.push(image);
            }
        }
        if candidates.len() > 1 && conf.is_enforcing() {
            return Err(RegistryError::AmbiguousName {
                name: name.familiar(),
                candidates: candidates.iter().map(ToString::to_string).collect(),
                from: found.from,
            });
        }
        Ok(Meaning { candidates, decided_by: Some(found.from) })
    }

    /// Asks for something of each image that a name may mean, until one is there.
    ///
    /// # Errors
    /// None is there, or a registry does not say whether it has it.
    pub fn first<T>(
        &self,
        name: &ImageRef,
        mut ask: impl FnMut(&ImageRef) -> Result<T, RegistryError>,
    ) -> Result<Had<T>, RegistryError> {
        let Meaning { candidates, decided_by } = self.meaning(name)?;
        let mut passed = Vec::new();
        for image in candidates {
            match ask(&image) {
                Ok(what) => return Ok(Had { what, image, passed }),
                Err(error) if is_absent(&error) => passed.push(Attempt { host: image.registry, error }),
                Err(error) => return Err(error),
            }
        }
        match (passed.pop(), decided_by) {
            (Some(only), _) if passed.is_empty() => Err(only.error),
            (last, from) => {
                passed.extend(last);
                let (name, from) = (name.familiar(), from.unwrap_or_default());
                Err(RegistryError::Nowhere { name, from, tried: passed })
            }
        }
    }
}

/// Whether a registry said that it has no such image. Many deny access to what they do not have; and who is blocked by a
/// file is so every day.
fn is_absent(error: &RegistryError) -> bool {
    matches!(
        error.root(),
        RegistryError::NotFound { .. } | RegistryError::Unauthorized { .. } | RegistryError::Blocked { .. }
    )
}

/// A repository with the tag and digest of a name.
fn full(text: &str, name: &ImageRef) -> Result<ImageRef, String> {
    let image: ImageRef = text.parse().map_err(|error: kiln_core::ReferenceError| error.reason)?;
    if image.short.0 {
        return Err("names no registry".to_owned());
    }
    if text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        return Err("has a tag or digest".to_owned());
    }
    Ok(ImageRef { tag: name.tag.clone(), digest: name.digest, ..image })
}

#[cfg(test)]
mod tests;
