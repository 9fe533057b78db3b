//! `kiln layers`: what is in each layer of an image, and what of it is for nothing.

mod caches;
mod fold;
mod limits;

use kiln_core::{Digest, ImageRef, Layer, Platform};
use kiln_oci::LoadedImage;
use kiln_store::Said;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::layers::of_layer;
use super::manage::history;
use super::manage::stored::layer_dirs;
use super::transfer::Origin;
use crate::Error;
use caches::Left;
use fold::Fold;

pub use caches::CacheLeft;
pub(super) use caches::keeps_out;
pub use limits::{Oversized, SizeLimits};

/// An image's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayersReport {
    /// The manifest.
    pub digest: Digest,
    /// What it is for.
    pub platform: Platform,
    /// The lowest first.
    pub layers: Vec<LayerReport>,
    /// Bytes of the compressed layers: what is sent.
    pub compressed: u64,
    /// Bytes of all files in all layers.
    pub unpacked: u64,
    /// Bytes of the files that a container sees: those of the merged tree.
    pub visible: u64,
    /// Bytes that later layers hide or delete: `unpacked` without `visible`.
    pub wasted: u64,
}

/// One layer. Bytes are of regular files, each once however many names it has; files are all but directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// From 1, the lowest.
    pub number: usize,
    /// The blob.
    pub digest: Digest,
    /// The tar in it.
    pub diff_id: Digest,
    /// The line of the image's history, if there is one.
    pub created_by: Option<String>,
    /// Bytes of the blob.
    pub compressed: u64,
    /// Bytes of its files.
    pub unpacked: u64,
    /// Files that were not there.
    pub added: u64,
    /// Files that were.
    pub changed: u64,
    /// Files of lower layers that it takes away.
    pub deleted: u64,
    /// Bytes of it that later layers hide or delete.
    pub wasted: u64,
    /// Its largest files.
    pub largest: Vec<LargeFile>,
    /// The largest of its files that later layers hide or delete.
    pub hidden: Vec<HiddenFile>,
    /// What package managers left in it.
    pub caches: Vec<CacheLeft>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LargeFile {
    /// Bytes.
    pub bytes: u64,
    /// Absolute. What is no UTF-8 in it is replaced.
    pub path: String,
}

/// A file that is in the image and that nobody sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenFile {
    /// The file.
    #[serde(flatten)]
    pub file: LargeFile,
    /// The number of the layer that hides it.
    pub by: usize,
}

impl Engine {
    /// Looks into each layer of an image of the local image store: at its directory if it is unpacked, else through its blob,
    /// once. `top` is how many of the largest files are named.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; there is no image for the platform; or a layer is not here or cannot be read.
    pub fn layers(
        &self,
        name: &ImageRef,
        platform: Option<&Platform>,
        top: usize,
    ) -> Result<LayersReport, Error> {
        // So that nothing of it is pruned meanwhile.
        let _pin = self.store.pin()?;
        let details = self.inspect(name)?;
        let image = details.image(platform)?;
        let mut fold = Fold::default();
        let mut layers = Vec::new();
        let steps: Vec<_> = history(image).into_iter().filter(|step| step.layer.is_some()).collect();
        for (index, layer) in image.layers.iter().enumerate() {
            let mut left = Left::default();
            let mut largest = Largest::of(top);
            fold.next_layer();
            self.list(layer, &mut |path, said| {
                if let Said::File { size } = said {
                    left.see(path, size);
                    largest.see(path, size);
                }
                fold.see(path, said);
            })?;
            layers.push(LayerReport {
                number: index + 1,
                digest: layer.digest,
                diff_id: layer.diff_id,
                created_by: steps.get(index).and_then(|step| step.line.created_by.clone()),
                compressed: layer.size,
                unpacked: 0,
                added: 0,
                changed: 0,
                deleted: 0,
                wasted: 0,
                largest: largest.finish(),
                hidden: Vec::new(),
                caches: left.finish(),
            });
        }
        Ok(finish(image, layers, fold, top))
    }

    /// Shows what a layer says.
    fn list(&self, layer: &Layer, see: &mut (dyn FnMut(&[u8], Said) + Send)) -> Result<(), Error> {
        for dir in layer_dirs(&self.store, &layer.diff_id)? {
            if self.store.has_layer(&dir) {
                return Ok(self.store.list_layer(&dir, see)?);
            }
        }
        let listed = self.store.list_blob(layer, self.store.open_blob(&layer.digest)?, see);
        listed.map_err(|error| of_layer(&self.store, &Origin::Store, &layer.digest, error))
    }

    /// Returns the largest files of a layer.
    pub(super) fn largest_files(&self, layer: &Layer, top: usize) -> Result<Vec<LargeFile>, Error> {
        let mut largest = Largest::of(top);
        self.list(layer, &mut |path, said| {
            if let Said::File { size } = said {
                largest.see(path, size);
            }
        })?;
        Ok(largest.finish())
    }
}

fn finish(image: &LoadedImage, mut layers: Vec<LayerReport>, mut fold: Fold, top: usize) -> LayersReport {
    for (report, counts) in layers.iter_mut().zip(fold.layers()) {
        report.unpacked = counts.bytes;
        (report.added, report.changed, report.deleted) = (counts.added, counts.changed, counts.deleted);
        report.wasted = counts.wasted;
    }
    fold.hidden.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
    for hidden in &fold.hidden {
        if let Some(report) = layers.get_mut(hidden.layer).filter(|report| report.hidden.len() < top) {
            let file = LargeFile { bytes: hidden.bytes, path: shown(&hidden.path) };
            report.hidden.push(HiddenFile { file, by: hidden.by + 1 });
        }
    }
    LayersReport {
        digest: image.manifest.digest,
        platform: image.image.platform(),
        compressed: layers.iter().map(|layer| layer.compressed).sum(),
        unpacked: layers.iter().map(|layer| layer.unpacked).sum(),
        wasted: layers.iter().map(|layer| layer.wasted).sum(),
        visible: fold.visible(),
        layers,
    }
}

/// The largest files seen so far.
struct Largest {
    top: usize,
    files: Vec<LargeFile>,
    /// What has fewer bytes cannot be among them.
    least: u64,
}

impl Largest {
    fn of(top: usize) -> Self {
        Self { top, files: Vec::new(), least: 0 }
    }

    fn see(&mut self, path: &[u8], bytes: u64) {
        if self.files.len() >= self.top.saturating_mul(2).max(16) {
            self.cut();
        }
        if bytes > 0 && bytes >= self.least {
            self.files.push(LargeFile { bytes, path: shown(path) });
        }
    }

    fn cut(&mut self) {
        self.files.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
        self.files.truncate(self.top);
        let full = self.files.len() == self.top;
        self.least = self.files.last().filter(|_| full).map_or(0, |file| file.bytes);
    }

    fn finish(mut self) -> Vec<LargeFile> {
        self.cut();
        self.files
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use super::Largest;

    #[test]
    fn the_largest_are_kept_whatever_their_order() {
        for step in [1, 7, 37, 99] {
            let mut largest = Largest::of(3);
            for number in 0..100_u64 {
                let bytes = number * step % 100;
                largest.see(format!("f{bytes}").as_bytes(), bytes);
            }
            let found: Vec<u64> = largest.finish().iter().map(|file| file.bytes).collect();
            assert_eq!(found, [99, 98, 97], "{step}");
        }
        let mut first = Largest::of(3);
        for bytes in [1, 2, 99, 98, 97].into_iter().chain([1; 40]) {
            first.see(b"f", bytes);
        }
        let found: Vec<u64> = first.finish().iter().map(|file| file.bytes).collect();
        assert_eq!(found, [99, 98, 97]);
        let mut none = Largest::of(0);
        none.see(b"a", 1);
        assert_eq!(none.finish(), []);
    }
}
