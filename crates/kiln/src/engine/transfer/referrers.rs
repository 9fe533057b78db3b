//! What is about an image goes where it goes: manifests that name it as their `subject`, and those about them.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>
//!
//! A layout has no list of them: they are entries of its own without a name (as oras writes them), or of an index under the tag
//! that registries without a list use (as regctl writes them). Both are read, the first is written.

use std::collections::HashSet;

use kiln_core::{Digest, ImageRef};
use kiln_oci::{BlobInfo, Children, Document, Layout, children, subject};

use super::{CopyOutcome, Found, Origin, Transfer, Tree};
use crate::Error;
use crate::request::ImagePlace;

/// More than anybody signs one image; each is a request.
const MOST: usize = 1000;

/// Refuses places that keep no such manifests.
pub(super) fn check(from: &ImagePlace, to: &ImagePlace) -> Result<(), Error> {
    for place in [from, to] {
        if !matches!(
            place,
            ImagePlace::Registry(_) | ImagePlace::Layout { .. } | ImagePlace::OciArchive { .. }
        ) {
            let reason =
                "nothing about an image is kept there: --referrers is for docker://, oci: and oci-archive:";
            return Err(Error::Output { output: place.to_string(), reason: reason.to_owned() });
        }
    }
    Ok(())
}

impl Transfer<'_> {
    /// Writes an image and what is about it.
    pub(super) fn write_with_referrers(&self, to: &ImagePlace, found: Found) -> Result<CopyOutcome, Error> {
        let about = self.referrers(&found)?;
        let referrers: Vec<Digest> = about.iter().map(|found| found.tree.root().digest).collect();
        let mut outcome = match to {
            ImagePlace::Registry(name) => {
                let mut outcome = self.push(&found, name)?;
                for found in &about {
                    let name = ImageRef { tag: None, digest: None, ..name.clone() };
                    outcome.sent += self.push(found, &name)?.sent;
                }
                outcome
            }
            _ => self.write(to, std::iter::once(found).chain(about).collect())?.remove(0),
        };
        outcome.referrers = referrers;
        Ok(outcome)
    }

    /// Finds them, each after what it is about.
    fn referrers(&self, found: &Found) -> Result<Vec<Found>, Error> {
        let mut seen: HashSet<Digest> = found.tree.documents.iter().map(|document| document.digest).collect();
        let mut todo: Vec<Digest> = found.tree.documents.iter().map(|document| document.digest).collect();
        let mut all: Vec<Found> = Vec::new();
        let listed = match &found.origin {
            Origin::Layout(layout) => self.subjects(layout, &found.origin)?,
            Origin::Registry(_) | Origin::Store => Vec::new(),
        };
        while let Some(digest) = todo.pop() {
            let about: Vec<BlobInfo> = match &found.origin {
                Origin::Registry(name) => {
                    let listed = self.registry.referrers(name, &digest, None)?;
                    listed.into_iter().map(|referrer| referrer.info).collect()
                }
                _ => {
                    let of = listed.iter().filter(|(subject, _)| *subject == digest);
                    of.map(|(_, info)| info.clone()).collect()
                }
            };
            for info in about {
                if !seen.insert(info.digest) {
                    continue;
                }
                if all.len() == MOST {
                    let reason = format!("more than {MOST} manifests are about this image");
                    return Err(Error::Output { output: "--referrers".to_owned(), reason });
                }
                let root = self.reader().document(&found.origin, &info)?;
                let tree = Tree::read(root, &mut |info| self.reader().document(&found.origin, info))?;
                todo.extend(tree.documents.iter().map(|document| document.digest));
                let (origin, spooled) = (found.origin.clone(), found.spooled.clone());
                all.push(Found { tree, origin, name: None, spooled });
            }
        }
        Ok(all)
    }

    /// Returns what a layout's manifests are about, with those manifests.
    fn subjects(&self, layout: &Layout, origin: &Origin) -> Result<Vec<(Digest, BlobInfo)>, Error> {
        let mut found = Vec::new();
        for entry in layout.entries()?.into_iter().chain(layout.artifacts()?) {
            let document = self.reader().document(origin, &entry.info)?;
            let listed = match entry.tag.as_deref().is_some_and(is_fallback_tag) {
                true => match children(&document)? {
                    Children::Index(entries) => entries.into_iter().map(|(info, _)| info).collect(),
                    Children::Manifest { .. } => Vec::new(),
                },
                false => Vec::new(),
            };
            found.extend(about(&document, entry.info)?);
            for info in listed {
                found.extend(about(&self.reader().document(origin, &info)?, info)?);
            }
        }
        Ok(found)
    }
}

fn about(document: &Document, info: BlobInfo) -> Result<Option<(Digest, BlobInfo)>, Error> {
    Ok(subject(document)?.map(|subject| (subject, info)))
}

/// `sha256-` and a digest's digits.
fn is_fallback_tag(tag: &str) -> bool {
    tag.split_once('-').is_some_and(|(kind, hex)| format!("{kind}:{hex}").parse::<Digest>().is_ok())
}
