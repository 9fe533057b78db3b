//! `--metadata-file`: what was built, under buildx's keys.
//! <https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file>

use kiln::{BuildOutcome, Digest};
use serde_json::{Map, Value, json};

/// Returns the file's text. `kiln.outcome` is kiln's own key, and holds everything.
pub(super) fn text(outcome: &BuildOutcome) -> String {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    put("buildx.build.ref", format!("default/default/{}", build_id()).into());
    // Of a single image only, as buildx: an index has no configuration.
    let single = outcome.images.first().filter(|image| Some(image.manifest) == outcome.digest);
    if let Some(digest) = outcome.digest {
        put("containerimage.digest", digest.to_string().into());
    }
    if let Some(image) = single {
        put("containerimage.config.digest", image.config.to_string().into());
    }
    if let Some(export) = outcome.exports.iter().find(|export| export.digest.is_some()) {
        let mut descriptor = json!({
            "mediaType": export.media_type,
            "digest": export.digest,
            "size": export.size,
        });
        if !export.annotations.is_empty() {
            descriptor["annotations"] = json!(export.annotations);
        }
        if let Some(image) = single {
            let platform = &image.platform;
            descriptor["platform"] = json!({ "architecture": platform.architecture, "os": platform.os });
            if let Some(variant) = &platform.variant {
                descriptor["platform"]["variant"] = json!(variant);
            }
        }
        put("containerimage.descriptor", descriptor);
    }
    let mut names = Vec::new();
    for name in outcome.exports.iter().flat_map(|export| &export.names).map(ToString::to_string) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if !names.is_empty() {
        put("image.name", names.join(",").into());
    }
    for (platform, predicate) in &outcome.provenance {
        let key = match outcome.provenance.len() {
            1 => "buildx.build.provenance".to_owned(),
            _ => format!("buildx.build.provenance/{platform}"),
        };
        put(&key, predicate.clone());
    }
    put("kiln.outcome", serde_json::to_value(outcome).unwrap_or_default());
    format!("{:#}\n", Value::Object(map))
}

/// Names this build among all others, as the last part of BuildKit's reference does: 25 digits and small letters.
fn build_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let random = || RandomState::new().hash_one(std::process::id()).to_le_bytes();
    Digest::of(&[random(), random(), random()].concat()).hex()[..25].to_owned()
}
