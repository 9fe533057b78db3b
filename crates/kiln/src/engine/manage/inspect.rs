//! All that is known of one image of the local image store.

use kiln_core::{Digest, History, ImageRef, Layer, Platform};
use kiln_oci::{LoadedImage, OciError};
use serde::{Deserialize, Serialize};

use super::seconds;
use crate::Error;
use crate::engine::Engine;

/// An image, as far as it is here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageDetails {
    /// What its names point to: a manifest or an index.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes, as they are.
    pub bytes: Vec<u8>,
    /// Its names.
    pub names: Vec<ImageRef>,
    /// When the last of them was given, seconds since 1970.
    pub tagged: Option<u64>,
    /// Bytes on disk, of all its platforms.
    pub size: u64,
    /// The images, in the order of the index.
    pub images: Vec<LoadedImage>,
    /// Platforms of the index that are not here.
    pub absent: Vec<Platform>,
}

/// A line of an image's history, with the layer that it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStep {
    /// What the configuration says.
    #[serde(flatten)]
    pub line: History,
    /// The layer, if it made one.
    pub layer: Option<Layer>,
}

impl Engine {
    /// Finds an image of the local image store by a name or an id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`]; or it cannot be read.
    pub fn inspect(&self, name: &ImageRef) -> Result<ImageDetails, Error> {
        let (digest, stored) = self.stored(name)?;
        let tagged: Vec<_> =
            self.store.images()?.into_iter().filter(|tagged| tagged.digest == digest).collect();
        let size = self.store.room_of(&[stored.parts(&self.store)?])?.first().map_or(0, |room| room.size);
        let media_type = stored.media_type();
        Ok(ImageDetails {
            digest,
            media_type,
            bytes: stored.root.bytes,
            tagged: tagged.iter().map(|tagged| seconds(tagged.tagged)).max(),
            names: tagged.into_iter().map(|tagged| tagged.name).collect(),
            size,
            images: stored.images,
            absent: stored.absent,
        })
    }
}

impl ImageDetails {
    /// Chooses the image for a platform; without one, this machine's, else the first.
    ///
    /// # Errors
    /// There is none for it.
    pub fn image(&self, platform: Option<&Platform>) -> Result<&LoadedImage, Error> {
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        let rated = self
            .images
            .iter()
            .filter_map(|image| Some((kiln_oci::matches(wanted, &image.image.platform())?, image)));
        // The first of equals.
        let best = rated.rev().max_by_key(|(rating, _)| *rating).map(|(_, image)| image);
        best.or_else(|| self.images.first().filter(|_| platform.is_none())).ok_or_else(|| {
            let available = self.images.iter().map(|image| image.image.platform().to_string()).collect();
            Error::Oci(OciError::NoPlatform { wanted: wanted.to_string(), available })
        })
    }
}

/// Goes through an image's history, the oldest line first, and says which layer each made. Layers that it does not mention
/// come first, as lines of their own; lines with a layer beyond the last one have none.
pub fn history(image: &LoadedImage) -> Vec<HistoryStep> {
    steps(&image.image.history, &image.layers)
}

pub(in crate::engine) fn steps(history: &[History], layers: &[Layer]) -> Vec<HistoryStep> {
    let with_layer = history.iter().filter(|line| !line.empty_layer).count();
    let (unmentioned, mut rest) = layers.split_at(layers.len().saturating_sub(with_layer));
    let silent = |layer: &Layer| HistoryStep { line: History::default(), layer: Some(layer.clone()) };
    let mut steps: Vec<HistoryStep> = unmentioned.iter().map(silent).collect();
    for line in history {
        let layer = match rest.split_first() {
            Some((first, others)) if !line.empty_layer => {
                rest = others;
                Some(first.clone())
            }
            _ => None,
        };
        steps.push(HistoryStep { line: line.clone(), layer });
    }
    steps
}

#[cfg(test)]
mod tests {
    use kiln_core::{Digest, History, Layer};

    use super::steps;

    #[test]
    fn each_layer_has_its_line() {
        let layer = |name: &str| Layer {
            media_type: String::new(),
            digest: Digest::of(name.as_bytes()),
            size: 1,
            diff_id: Digest::of(name.as_bytes()),
            annotations: Default::default(),
        };
        let line = |text: &str, empty| History {
            created_by: Some(text.to_owned()),
            empty_layer: empty,
            ..History::default()
        };
        let lines = [line("FROM", false), line("ENV", true), line("RUN", false)];
        let names = |layers: &[&str]| {
            let layers: Vec<Layer> = layers.iter().map(|name| layer(name)).collect();
            let shown = |layer: Option<Layer>| {
                let known = |name: &&str| {
                    layer.as_ref().is_some_and(|layer| layer.digest == Digest::of(name.as_bytes()))
                };
                ["a", "b", "c"].into_iter().find(known).unwrap_or("-").to_owned()
            };
            let steps = steps(&lines, &layers).into_iter();
            steps
                .map(|step| (step.line.created_by.unwrap_or_default(), shown(step.layer)))
                .collect::<Vec<_>>()
        };
        let own = |rows: &[(&str, &str)]| {
            rows.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(names(&["a", "b"]), own(&[("FROM", "a"), ("ENV", "-"), ("RUN", "b")]));
        assert_eq!(names(&["a", "b", "c"]), own(&[("", "a"), ("FROM", "b"), ("ENV", "-"), ("RUN", "c")]));
        assert_eq!(names(&["a"]), own(&[("FROM", "a"), ("ENV", "-"), ("RUN", "-")]));
        assert_eq!(names(&[]), own(&[("FROM", "-"), ("ENV", "-"), ("RUN", "-")]));
    }
}
