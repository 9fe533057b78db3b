//! From a solved plan to images, in each form that an output asks for.

use std::collections::{BTreeMap, HashMap};

use kiln_core::{ImageRef, Layer, LayerId, Platform, Snapshot};
use kiln_oci::{AssembleOptions, Attestation, Document, Image, MediaTypes};
use kiln_solver::Solved;
use kiln_store::{Compression, LayerOptions};

use super::attest::Claims;
use super::build::Build;
use super::export::{describe, is_image};
use super::patience::Patience;
use crate::request::{Annotation, AnnotationPlace, ImageForm, LayerCompression, Output};
use crate::{BuildRequest, Error};

/// The images of a build in one form, and their index.
#[derive(Debug)]
pub(super) struct Finished {
    /// In the order of the platforms.
    pub(super) images: Vec<Image>,
    /// What is said of them beside them.
    pub(super) attestations: Vec<Attestation>,
    /// Of several platforms, or where one was asked for.
    pub(super) index: Option<Document>,
    /// What is said of the index where its digest is written.
    index_annotations: BTreeMap<String, String>,
}

impl Finished {
    /// Returns the documents that are to be written.
    pub(super) fn documents(&self) -> impl Iterator<Item = &Document> {
        let images = self.images.iter().flat_map(|image| [&image.manifest, &image.config]);
        let attestations = self.attestations.iter().flat_map(Attestation::documents);
        images.chain(attestations).chain(self.index.as_ref())
    }

    /// Returns what names point to.
    pub(super) fn root(&self) -> Option<&Document> {
        self.index.as_ref().or_else(|| self.images.first().map(|image| &image.manifest))
    }

    /// Returns the platform of the only image.
    pub(super) fn platform(&self) -> Option<&Platform> {
        self.images.first().filter(|_| self.index.is_none()).map(|image| &image.platform)
    }

    /// Returns what is said of the root where its digest is written.
    pub(super) fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        match (&self.index, self.images.first()) {
            (Some(_), _) => Some(&self.index_annotations),
            (None, image) => image.map(|image| &image.descriptor_annotations),
        }
    }
}

/// Blobs of layers by what they were made of and how.
pub(super) type Packed = HashMap<(LayerId, LayerOptions), Layer>;

impl Build<'_> {
    /// Puts the images together in a form. Blobs of bases are there if layers of theirs are to be packed again.
    pub(super) fn finish(
        &self,
        solved: &Solved,
        packed: &Packed,
        form: &ImageForm,
        claims: &Claims,
    ) -> Result<Finished, Error> {
        let options = layer_options(form, self.epoch);
        let mut pack = |layer: &LayerId| match packed.get(&(layer.clone(), options)) {
            Some(packed) => Ok(packed.clone()),
            None => self.layer_blob(layer, &options, self.cancel),
        };
        let mut images = Vec::new();
        for planned in &self.plan.images {
            let mut layers = self.base_of(planned).map_or_else(Vec::new, |base| base.image.layers.clone());
            if form.force_compression {
                for layer in &mut layers {
                    *layer = self.forced(layer, form, options.compression)?;
                }
            }
            let of = |place| annotations(form, place, Some(&planned.platform));
            let assembling = AssembleOptions {
                media_types: match form.docker_mediatypes() {
                    true => MediaTypes::Docker,
                    false => MediaTypes::Oci,
                },
                annotations: of(AnnotationPlace::Manifest),
                descriptor_annotations: of(AnnotationPlace::ManifestDescriptor),
            };
            let mut planned = planned.clone();
            let rootfs = planned.rootfs.and_then(|id| Some(&solved.results.get(&id)?.snapshot));
            self.cache.write_inline(
                &mut planned.config,
                planned.rootfs,
                rootfs.unwrap_or(&Snapshot::default()),
                layers.len(),
                &options,
            );
            images.push(super::image::assemble(
                &planned,
                &layers,
                solved,
                &mut pack,
                self.epoch,
                &assembling,
            )?);
        }
        let attestations = claims.attach(&images, &self.all_names());
        let index = self.has_index().then(|| {
            let all: Vec<&Image> = images.iter().collect();
            kiln_oci::attested_index(&all, &attestations, &annotations(form, AnnotationPlace::Index, None))
        });
        let index_annotations = annotations(form, AnnotationPlace::IndexDescriptor, None);
        Ok(Finished { images, attestations, index, index_annotations })
    }

    /// Returns a base's layer in another compression. Of the same kind it stays as it is, unless a level is asked for.
    fn forced(&self, layer: &Layer, form: &ImageForm, compression: Compression) -> Result<Layer, Error> {
        use kiln_oci::media::Compression as Kind;
        let kind = kiln_oci::media::layer_compression(&layer.media_type);
        let has_toc = layer.annotations.contains_key(kiln_store::estargz::TOC_DIGEST);
        let same = matches!(
            (kind, compression),
            (Some(Kind::Gzip), Compression::Gzip { .. })
                | (Some(Kind::Zstd), Compression::Zstd { .. })
                | (Some(Kind::None), Compression::None)
        ) || (has_toc && matches!(compression, Compression::Estargz { .. }));
        match same && form.level.is_none() {
            true => Ok(layer.clone()),
            false => {
                let way = (layer, compression);
                Patience::of(self.request).repack(&self.engine.store, way, self.reporter, self.cancel)
            }
        }
    }

    /// Whether the result is an index, and not one image.
    pub(super) fn has_index(&self) -> bool {
        self.plan.index || self.plan.images.len() > 1 || !self.request.attest.is_empty()
    }

    /// Returns the names of all outputs, each once.
    fn all_names(&self) -> Vec<ImageRef> {
        let mut names = self.request.tags.clone();
        for name in self.request.outputs.iter().filter_map(Output::form).flat_map(|form| &form.names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Refuses outputs that cannot be had, before anything is done for them.
    pub(super) fn check_outputs(&self) -> Result<(), Error> {
        let files =
            [("--sbom-file", &self.request.sbom_file), ("--provenance-file", &self.request.provenance_file)];
        let platforms = self.plan.images.len();
        if platforms > 1
            && let Some((flag, _)) = files.into_iter().find(|(_, file)| file.is_some())
        {
            return Err(Error::OnePlatformOnly { output: flag.to_owned(), platforms });
        }
        for output in &self.request.outputs {
            let Some(form) = output.form() else { continue };
            let refuse = |reason| Err(Error::Output { output: describe(output), reason });
            if let Err(reason) = form.check() {
                return refuse(reason);
            }
            if !self.request.attest.is_empty()
                && matches!(output, Output::Docker { .. } | Output::Daemon { .. })
            {
                return refuse(
                    "docker's archive holds an image and nothing beside it; write type=oci, or leave out --attest, \
                     --provenance and --sbom: --sbom-file and --provenance-file are files of their own"
                        .to_owned(),
                );
            }
            if self.has_index() && matches!(output, Output::Docker { .. } | Output::Daemon { .. }) {
                let output = match output {
                    Output::Daemon { .. } => "--load".to_owned(),
                    _ => "type=docker".to_owned(),
                };
                return Err(Error::OnePlatformOnly { output, platforms: self.plan.images.len() });
            }
            if matches!(output, Output::Image { push: true, .. })
                && form.names.is_empty()
                && self.request.tags.is_empty()
            {
                return refuse("a name is needed to push: add --tag, or name=REF".to_owned());
            }
            let platforms: Vec<&Platform> = self.plan.images.iter().map(|image| &image.platform).collect();
            for Annotation { place, platform, key, .. } in &form.annotations {
                let of_index = matches!(place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor);
                if of_index && !self.has_index() {
                    return refuse(format!(
                        "annotation {key} is for an index, and one platform's image has none: annotate the manifest"
                    ));
                }
                if let Some(platform) = platform.as_ref().filter(|platform| !platforms.contains(platform)) {
                    return refuse(format!(
                        "annotation {key} is for {platform}, and no image of that is built"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Returns each way that layers are packed in, for any of the outputs.
pub(super) fn ways(request: &BuildRequest, epoch: Option<u64>) -> Vec<LayerOptions> {
    let mut ways = Vec::new();
    for form in request.outputs.iter().filter(|output| is_image(output)).filter_map(Output::form) {
        let way = layer_options(form, epoch);
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    if request.outputs.is_empty() {
        ways.push(layer_options(&ImageForm::default(), epoch));
    }
    ways
}

/// Returns how a form wants layers packed.
pub(super) fn layer_options(form: &ImageForm, epoch: Option<u64>) -> LayerOptions {
    let level = |default| form.level.unwrap_or(default);
    let compression = match form.compression {
        LayerCompression::Gzip => Compression::Gzip { level: level(Compression::GZIP) },
        LayerCompression::Estargz => Compression::Estargz { level: level(Compression::GZIP) },
        LayerCompression::Zstd => Compression::Zstd { level: level(Compression::ZSTD) },
        LayerCompression::Uncompressed => Compression::None,
    };
    LayerOptions { compression, epoch }
}

/// Returns the annotations of a place: first those of every platform, then those of this one.
fn annotations(
    form: &ImageForm,
    place: AnnotationPlace,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let here = form.annotations.iter().filter(|one| one.place == place);
    let said = |one: &Annotation| (one.key.clone(), one.value.clone());
    let mut all: BTreeMap<String, String> =
        here.clone().filter(|one| one.platform.is_none()).map(said).collect();
    all.extend(here.filter(|one| platform.is_some() && one.platform.as_ref() == platform).map(said));
    all
}
