//! `--max-layer-size`, `--max-image-size`: an image that is larger than it may be is refused, and why it is so large is said.

use kiln_core::{Digest, ImageConfig, Platform, StepId};
use kiln_frontend::PlannedImage;
use kiln_oci::Image;
use kiln_solver::Solved;
use serde::{Deserialize, Serialize};

use super::{LargeFile, LayersReport};
use crate::Error;
use crate::engine::attest::Claims;
use crate::engine::build::Build;
use crate::engine::export::form_of;
use crate::engine::finished::{Finished, Packed};
use crate::engine::manage::steps;
use crate::request::{ImageForm, Output};

/// How many files are named.
const TOP: usize = 5;
/// How many layers are named of an image that is too large.
const LAYERS: usize = 3;

/// The most bytes that an image may have, compressed: what a registry stores and a pull fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SizeLimits {
    /// `--max-layer-size`: of each layer.
    pub layer: Option<u64>,
    /// `--max-image-size`: of all layers of one platform's image together.
    pub image: Option<u64>,
}

/// A layer that is too large, or one of the largest of an image that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oversized {
    /// The image's.
    pub platform: Platform,
    /// From 1, the lowest.
    pub number: usize,
    /// How many layers there are.
    pub of: usize,
    /// The layer.
    pub digest: Digest,
    /// Its compressed bytes.
    pub bytes: u64,
    /// The line of the image's history; none if there is none.
    pub step: Option<String>,
    /// The step's lines in the Dockerfile, if it is one of this build.
    pub lines: Option<(usize, usize)>,
    /// Its largest files, unpacked; none if it is not here.
    pub largest: Vec<LargeFile>,
}

impl SizeLimits {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.layer.is_some() || self.image.is_some()
    }

    /// Fails if layers of these sizes are too large, or too large together. `describe` is asked about layers by their index.
    fn check(
        &self,
        sizes: &[u64],
        (file, text): (&str, &str),
        describe: &dyn Fn(usize) -> Oversized,
    ) -> Result<(), Error> {
        let (file, text) = (file.to_owned(), text.to_owned());
        let too_large = |limit: u64| (0..sizes.len()).filter(move |&index| sizes[index] > limit);
        if let Some(limit) = self.layer
            && too_large(limit).next().is_some()
        {
            let layers = too_large(limit).map(describe).collect();
            return Err(Error::LayerSize { limit, layers, file, text });
        }
        let bytes: u64 = sizes.iter().sum();
        match self.image {
            Some(limit) if bytes > limit => {
                let mut order: Vec<usize> = (0..sizes.len()).collect();
                order.sort_by_key(|&index| std::cmp::Reverse(sizes[index]));
                let layers = order.into_iter().take(LAYERS).map(describe).collect();
                Err(Error::ImageSize { limit, bytes, layers, file, text })
            }
            _ => Ok(()),
        }
    }
}

impl LayersReport {
    /// Fails if the image has more than it may have.
    ///
    /// # Errors
    /// [`Error::LayerSize`], [`Error::ImageSize`].
    pub fn check(&self, limits: &SizeLimits) -> Result<(), Error> {
        let sizes: Vec<u64> = self.layers.iter().map(|layer| layer.compressed).collect();
        limits.check(&sizes, ("", ""), &|index| {
            let layer = &self.layers[index];
            Oversized {
                platform: self.platform.clone(),
                number: layer.number,
                of: self.layers.len(),
                digest: layer.digest,
                bytes: layer.compressed,
                step: layer.created_by.clone(),
                lines: None,
                largest: layer.largest.clone(),
            }
        })
    }
}

impl Build<'_> {
    /// Puts the images together in each form that outputs want, and fails if one has more than it may have. Without limits
    /// it does nothing, and returns nothing.
    pub(in crate::engine) fn within_limits(
        &self,
        outputs: &[Output],
        solved: &Solved,
        packed: &Packed,
        claims: &Claims,
    ) -> Result<Vec<(ImageForm, Finished)>, Error> {
        let limits = &self.request.size_limits;
        let mut forms: Vec<(ImageForm, Finished)> = Vec::new();
        if !limits.any() {
            return Ok(forms);
        }
        for form in outputs.iter().filter_map(form_of) {
            if forms.iter().any(|(known, _)| *known == form) {
                continue;
            }
            if form.force_compression {
                let task = self.reporter.task("checking sizes");
                for base in self.plan.images.iter().filter_map(|planned| self.base_of(planned)) {
                    self.bases.fetch(&base, &task, self.cancel)?;
                }
                task.done();
            }
            let finished = self.finish(solved, packed, &form, claims)?;
            self.check_sizes(solved, &finished.images)?;
            forms.push((form, finished));
        }
        if forms.is_empty() {
            // Only files are written: those of an image as it would be.
            self.check_sizes(solved, &self.finish(solved, packed, &ImageForm::default(), claims)?.images)?;
        }
        Ok(forms)
    }

    fn check_sizes(&self, solved: &Solved, images: &[Image]) -> Result<(), Error> {
        for (planned, image) in self.plan.images.iter().zip(images) {
            let base = self.base_of(planned).map_or(0, |base| base.image.layers.len());
            let makers = makers(planned, base, solved);
            let config: Option<ImageConfig> = serde_json::from_slice(&image.config.bytes).ok();
            let history = config.map(|config| steps(&config.history, &image.layers)).unwrap_or_default();
            let history: Vec<_> = history.into_iter().filter(|step| step.layer.is_some()).collect();
            let sizes: Vec<u64> = image.layers.iter().map(|layer| layer.size).collect();
            self.request.size_limits.check(
                &sizes,
                (&self.definition.file, &self.definition.text),
                &|index| {
                    let layer = &image.layers[index];
                    let maker = makers.iter().find(|(made, _)| *made == index);
                    let step = maker.and_then(|(_, id)| self.plan.graph.get(*id));
                    Oversized {
                        platform: image.platform.clone(),
                        number: index + 1,
                        of: sizes.len(),
                        digest: layer.digest,
                        bytes: layer.size,
                        step: history.get(index).and_then(|step| step.line.created_by.clone()),
                        lines: step.and_then(|step| step.info.lines),
                        // A base's layer need not be here.
                        largest: self.engine.largest_files(layer, TOP).unwrap_or_default(),
                    }
                },
            )?;
        }
        Ok(())
    }
}

/// Which step made which layer, in the same way as the image was put together.
fn makers(planned: &PlannedImage, base: usize, solved: &Solved) -> Vec<(usize, StepId)> {
    let mut depth = base;
    let mut found = Vec::new();
    for id in planned.history.iter().filter_map(|line| line.step) {
        let Some(finished) = solved.results.get(&id) else { continue };
        if finished.snapshot.layers.len() > depth {
            found.push((base + found.len(), id));
            depth = finished.snapshot.layers.len();
        }
    }
    found
}
