//! Lowering without any registry.

use kiln_core::{Digest, ImageConfig};
use kiln_dockerfile::{Diagnostic, Dockerfile};

use crate::{BuildPlan, ImageRequest, ImageTable, LowerOptions, Lowered, ResolvedImage, lower};

/// Turns a Dockerfile into a plan without asking anybody: an image counts as one with an empty configuration, and its
/// digest is that of its name and platform, which no image in the world has.
///
/// # Errors
/// As for [`lower`].
pub fn lower_offline(file: &Dockerfile, options: &LowerOptions) -> Result<BuildPlan, Vec<Diagnostic>> {
    let mut images = ImageTable::new();
    loop {
        match lower(file, options, &images)? {
            Lowered::Ready(plan) => return Ok(*plan),
            Lowered::NeedImages(requests) => {
                images.extend(requests.into_iter().map(|request| {
                    let image = made_up(&request);
                    (request, image)
                }));
            }
        }
    }
}

/// It has one layer, since an image without any would count as scratch.
pub(crate) fn made_up(request: &ImageRequest) -> ResolvedImage {
    let digest = Digest::of(format!("{} {}", request.name, request.platform).as_bytes());
    let mut config = ImageConfig::scratch(&request.platform);
    config.rootfs.diff_ids.push(digest);
    ResolvedImage { manifest: digest, config }
}
