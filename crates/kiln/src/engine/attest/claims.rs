//! What is said of the images of one build, and how it gets beside them.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use kiln_core::{ImageRef, Platform};
use kiln_oci::{Attestation, Image};
use kiln_sbom::{Inventory, Subject, spdx};
use kiln_solver::Solved;
use serde_json::Value;

use super::provenance::{self, Invocation};
use super::sbom::seconds;
use super::statement::{self, PROVENANCE, SPDX, StatedOf, statement};
use crate::Error;
use crate::engine::build::{Build, now};
use crate::engine::chain::chain;
use crate::engine::export::parts;
use crate::engine::to_file::to_file;
use crate::request::{Attest, ProvenanceMode, ProvenanceOptions};

/// All that is said.
pub(in crate::engine) struct Claims {
    images: Vec<Said>,
    attached: Wanted,
    options: ProvenanceOptions,
}

/// Of one image.
struct Said {
    platform: Platform,
    provenance: Option<Value>,
    packages: Option<Inventory>,
    /// What the SPDX document is dated, seconds since 1970.
    created: u64,
}

/// What is to be written beside images.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    provenance: bool,
    sbom: bool,
}

impl Build<'_> {
    /// Finds out all that is to be said of the results. Nothing is asked for: nothing is looked at.
    pub(in crate::engine) fn claims(&self, solved: &Solved) -> Result<Claims, Error> {
        let Self { engine, request, plan, reporter, cancel, .. } = self;
        let mut attached = Wanted::default();
        // What a file of its own says where nothing is said of how much.
        let mode = request.provenance_told.unwrap_or(ProvenanceMode::Min);
        let mut options = ProvenanceOptions { mode, ..ProvenanceOptions::default() };
        for attest in &request.attest {
            match attest {
                Attest::Sbom => attached.sbom = true,
                Attest::Provenance(own) => {
                    attached.provenance = true;
                    options = own.clone();
                }
            }
        }
        let provenance =
            attached.provenance || request.provenance_file.is_some() || request.provenance_told.is_some();
        let packages = attached.sbom || request.sbom_file.is_some();
        let mut claims = Claims { images: Vec::new(), attached, options };
        if !provenance && !packages {
            return Ok(claims);
        }
        // The same statement again has no time of its own, and no name for the one build that made it.
        let invocation = self.epoch.is_none().then(|| Invocation {
            id: format!("{:016x}", RandomState::new().hash_one((self.started, std::process::id()))),
            started: self.started,
            finished: now(),
        });
        let provenance =
            provenance.then(|| provenance::predicate(self, &claims.options, invocation.as_ref()));
        for (planned, (_, snapshot)) in plan.images.iter().zip(parts(plan, solved)) {
            let mut said = Said {
                platform: planned.platform.clone(),
                provenance: provenance.clone(),
                packages: None,
                created: 0,
            };
            if packages {
                let task = reporter.task(&format!("[{}] generating sbom", planned.platform));
                let found = engine.inventory(&snapshot, cancel);
                task.end_with(&found);
                let found = found?;
                for note in &found.notes {
                    reporter.warn(format!("the list of packages may lack some: {note}"), None);
                }
                said.packages = Some(found);
                let steps = chain(&plan.graph, planned.rootfs).steps;
                let made = steps.iter().filter_map(|id| solved.results.get(id)?.created).max();
                let base = planned.base.as_ref().and_then(|base| base.created.as_deref());
                said.created = self.epoch.or(made).unwrap_or_else(|| seconds(base));
            }
            claims.images.push(said);
        }
        Ok(claims)
    }

    /// Writes what is asked for as files of their own.
    pub(in crate::engine) fn write_claims(
        &self,
        claims: &Claims,
        solved: &Solved,
        images: &[Image],
    ) -> Result<(), Error> {
        let request = self.request;
        // More than one platform was refused before.
        let Some(said) = claims.images.first() else { return Ok(()) };
        let image = images.first();
        if let (Some(path), Some(packages)) = (&request.sbom_file, &said.packages) {
            let document = spdx(packages, &subject(&request.tags, said, image), said.created);
            to_file(Some(path), |out| write(out, path, &format!("{document:#}\n")))?;
        }
        if let (Some(path), Some(predicate)) = (&request.provenance_file, &said.provenance) {
            let subjects = match image {
                Some(image) => statement::image(&request.tags, &said.platform, image.manifest.digest),
                None => match parts(self.plan, solved).next() {
                    Some((_, snapshot)) => self.engine.digests(&snapshot, self.cancel)?,
                    None => Vec::new(),
                },
            };
            let text = statement(PROVENANCE, &subjects, predicate);
            to_file(Some(path), |out| write(out, path, &format!("{}\n", String::from_utf8_lossy(&text))))?;
        }
        Ok(())
    }
}

impl Claims {
    /// Whether anything is written beside images.
    pub(in crate::engine) fn are_attached(&self) -> bool {
        self.attached.sbom || self.attached.provenance
    }

    /// Returns what is written beside images with these names.
    pub(in crate::engine) fn attach(&self, images: &[Image], names: &[ImageRef]) -> Vec<Attestation> {
        if !self.are_attached() {
            return Vec::new();
        }
        let attach = |(said, image): (&Said, &Image)| {
            let mut statements = Vec::new();
            let subjects = statement::image(names, &said.platform, image.manifest.digest);
            let mut say = |kind: &str, predicate: &Value| {
                statements.push((kind.to_owned(), statement(kind, &subjects, predicate)));
            };
            if let Some(packages) = said.packages.as_ref().filter(|_| self.attached.sbom) {
                say(SPDX, &spdx(packages, &subject(names, said, Some(image)), said.created));
            }
            if let Some(predicate) = said.provenance.as_ref().filter(|_| self.attached.provenance) {
                say(PROVENANCE, predicate);
            }
            Attestation::new(image, statements)
        };
        self.images.iter().zip(images).map(attach).collect()
    }

    /// Returns what is written beside the files of an image: names and bytes.
    pub(in crate::engine) fn files(&self, which: usize, subjects: &[StatedOf]) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let Some(said) = self.images.get(which) else { return files };
        if let Some(packages) = said.packages.as_ref().filter(|_| self.attached.sbom) {
            let document = spdx(packages, &subject(&[], said, None), said.created);
            files.push(("sbom.spdx.json".to_owned(), statement(SPDX, subjects, &document)));
        }
        let inline = self.options.inline_only;
        if let Some(predicate) = said.provenance.as_ref().filter(|_| self.attached.provenance && !inline) {
            let name = self.options.filename.clone().unwrap_or_else(|| "provenance.json".to_owned());
            files.push((name, statement(PROVENANCE, subjects, predicate)));
        }
        files
    }

    /// Returns the predicate of each platform, if it is written anywhere.
    pub(in crate::engine) fn provenance(&self) -> BTreeMap<String, Value> {
        let said = self.images.iter();
        said.filter_map(|said| Some((said.platform.to_string(), said.provenance.clone()?))).collect()
    }
}

/// What a document of packages is about.
fn subject(names: &[ImageRef], said: &Said, image: Option<&Image>) -> Subject {
    let name = names.first().map_or_else(|| "image".to_owned(), ImageRef::familiar);
    match image {
        Some(image) => Subject::image(name, image.manifest.digest, said.platform.to_string()),
        None => Subject::directory("files"),
    }
}

fn write(out: &mut dyn std::io::Write, path: &std::path::Path, text: &str) -> Result<(), Error> {
    use kiln_core::IoResultExt as _;
    Ok(out.write_all(text.as_bytes()).at("write", path)?)
}
