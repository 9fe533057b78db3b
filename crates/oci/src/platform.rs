//! Which manifest of an index is meant.

use kiln_core::Platform;
use oci_spec::image::{Descriptor, ImageIndex};

use crate::{OciError, media};

/// Rates how well `offered` serves `wanted`: higher is better, none is not at all.
///
/// As containerd matches (<https://github.com/containerd/platforms/blob/main/compare.go>): the very variant first, then
/// older ones of the same architecture (`amd64/v3` runs v2 and v1, `arm/v7` runs v6 and v5, `arm64/v9` runs v8). Unlike
/// there, another architecture never matches, although an arm64 machine may run arm and amd64 runs 386: a base of
/// another architecture than the one asked for would be a surprise.
pub fn matches(wanted: &Platform, offered: &Platform) -> Option<u32> {
    if wanted.os != offered.os || wanted.architecture != offered.architecture {
        return None;
    }
    if wanted.variant == offered.variant {
        return Some(u32::MAX);
    }
    let (wanted, offered) = (version(wanted)?, version(offered)?);
    (offered <= wanted).then_some(offered)
}

/// Picks the manifest, or inner index, for a platform. Attestations (platform `unknown/unknown`, as BuildKit adds
/// them) are passed over. An entry without a platform is taken only where it is the only one.
pub(crate) fn select<'a>(index: &'a ImageIndex, wanted: &Platform) -> Result<&'a Descriptor, OciError> {
    let candidates: Vec<&Descriptor> = index.manifests().iter().filter(|entry| is_image(entry)).collect();
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in &candidates {
        let Some(rating) = entry.platform().as_ref().and_then(|p| matches(wanted, &from_spec(p))) else {
            continue;
        };
        // The first of equals, as docker does.
        if best.is_none_or(|(other, _)| rating > other) {
            best = Some((rating, entry));
        }
    }
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    if let [only] = candidates[..]
        && only.platform().is_none()
    {
        return Ok(only);
    }
    Err(OciError::NoPlatform {
        wanted: wanted.to_string(),
        available: candidates.iter().map(|entry| describe(entry)).collect(),
    })
}

pub(crate) fn is_image(entry: &Descriptor) -> bool {
    let media_type = entry.media_type().as_ref();
    let unknown = entry
        .platform()
        .as_ref()
        .is_some_and(|p| p.os().to_string() == "unknown" || p.architecture().to_string() == "unknown");
    let attestation =
        entry.annotations().as_ref().is_some_and(|a| a.contains_key("vnd.docker.reference.type"));
    let artifact = entry.artifact_type().is_some();
    (media::is_manifest(media_type) || media::is_index(media_type)) && !unknown && !attestation && !artifact
}

pub(crate) fn from_spec(platform: &oci_spec::image::Platform) -> Platform {
    let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
    Platform::new(&os, &architecture, platform.variant().as_deref())
}

pub(crate) fn to_spec(platform: &Platform) -> oci_spec::image::Platform {
    let mut spec = oci_spec::image::Platform::default();
    spec.set_os(platform.os.as_str().into());
    spec.set_architecture(platform.architecture.as_str().into());
    spec.set_variant(platform.variant.clone());
    spec
}

fn describe(entry: &Descriptor) -> String {
    match entry.platform() {
        Some(platform) => from_spec(platform).to_string(),
        None => "an image without a platform".to_owned(),
    }
}

/// `v8.1` is 801. Core's normal form leaves out what is usual: no variant is v1 on amd64 and v8 on arm64.
fn version(platform: &Platform) -> Option<u32> {
    let Some(variant) = &platform.variant else {
        return match platform.architecture.as_str() {
            "amd64" => Some(100),
            "arm64" => Some(800),
            _ => Some(0),
        };
    };
    let (major, minor) = match variant.strip_prefix('v')?.split_once('.') {
        Some((major, minor)) => (major, minor.parse::<u32>().ok()?),
        None => (variant.strip_prefix('v')?, 0),
    };
    major.parse::<u32>().ok()?.checked_mul(100)?.checked_add(minor)
}
