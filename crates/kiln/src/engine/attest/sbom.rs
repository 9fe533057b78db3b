//! `kiln sbom`: what packages an image holds.

use kiln_core::{Cancel, ImageRef, Platform, Snapshot};
use kiln_registry::RegistryClient;
use kiln_sbom::{Inventory, Subject};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tree::ViewTree;
use crate::Error;
use crate::engine::Engine;
use crate::engine::bases::Bases;
use crate::engine::run_image::Silent;
use crate::request::RegistryOptions;

/// Whose packages to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SbomRequest {
    /// The image: of the local image store, else of its registry.
    pub image: ImageRef,
    /// `--platform`; this machine's if none.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// How registries are reached.
    #[serde(default)]
    pub registry: RegistryOptions,
}

/// What packages an image holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sbom {
    /// SPDX 2.3 (<https://spdx.github.io/spdx-spec/v2.3/>). Equal images give equal documents.
    pub document: Value,
    /// How many packages it lists.
    pub packages: usize,
    /// What could not be read, one line each.
    pub notes: Vec<String>,
}

impl Engine {
    /// Lists the packages of an image, which is fetched if it is not here.
    ///
    /// # Errors
    /// The image cannot be had, or its files cannot be looked at. What of them cannot be read is a note.
    pub fn sbom(&self, request: &SbomRequest, cancel: &Cancel) -> Result<Sbom, Error> {
        let _pin = self.store.pin()?;
        let config = self.registry_config(&request.registry);
        let registry = RegistryClient::new(config, cancel.clone())?;
        let bases = Bases::new(&self.store, &registry);
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let named = bases.by_name(&request.image, &platform)?;
        let base = named.base;
        let snapshot = bases.unpack(&base, &Silent, cancel)?;
        let found = self.inventory(&snapshot, cancel)?;
        let platform = base.image.image.platform().to_string();
        let subject = Subject::image(named.name.familiar(), base.image.digest(), platform);
        let created = seconds(base.image.image.created.as_deref());
        Ok(Sbom {
            document: kiln_sbom::spdx(&found, &subject, created),
            packages: found.packages.len(),
            notes: found.notes.iter().map(ToString::to_string).collect(),
        })
    }

    /// Reads what packages a snapshot holds.
    pub(super) fn inventory(&self, snapshot: &Snapshot, cancel: &Cancel) -> Result<Inventory, Error> {
        if snapshot.layers.is_empty() {
            return Ok(Inventory::default());
        }
        let view = self.view_of(snapshot, cancel)?;
        let found = kiln_sbom::inventory(&ViewTree { root: view.root()?, cancel });
        if cancel.is_cancelled() { Err(Error::Interrupted) } else { Ok(found) }
    }
}

/// Reads a time as configurations write it; one that is not there, or before 1970, is 1970.
pub(super) fn seconds(time: Option<&str>) -> u64 {
    let time = time.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.and_then(|time| u64::try_from(time.as_second()).ok()).unwrap_or_default()
}
