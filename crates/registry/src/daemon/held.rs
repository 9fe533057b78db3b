//! Which layers of an image an engine has, and so can load it without.
//!
//! Docker looks for a layer by the digest of all layers up to it before it opens the layer's file
//! (<https://github.com/moby/moby/blob/7066cabe1fd154e20122da5bc7707ab7d7666291/image/tarexport/load.go>), so the files of the lowest ones that an image of its own
//! has may be missing; not so where containerd keeps its images. Podman refuses docker's archive then ("Some layer tarfiles are
//! missing"), but copies an OCI archive layer by layer and reads none that its storage has, above whatever it lies
//! (<https://github.com/containers/image/blob/b82f11f2b225c57809ee0c4dd2a9530d67cd21df/storage/storage_dest.go>).

use kiln_core::Digest;
use reqwest::Method;
use serde::Deserialize;

use super::{Daemon, DaemonError, escaped};

/// Images that are looked at. Those of somebody who builds an image again are among the newest.
const MOST_IMAGES: usize = 64;

/// What an engine can do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing, in any archive.
    Nothing,
    /// The files of so many lowest layers, in docker's archive.
    Lowest(usize),
    /// The files of these, in an OCI archive that names them by their diff ids.
    These(Vec<Digest>),
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "Components", default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(rename = "Name", default)]
    name: String,
}

#[derive(Deserialize)]
struct Info {
    /// Pairs of words.
    #[serde(rename = "DriverStatus")]
    driver: Option<Vec<Vec<String>>>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "RootFS")]
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "Layers")]
    layers: Option<Vec<Digest>>,
}

impl Daemon {
    /// Looks which of an image's layers the engine has, lowest first.
    ///
    /// # Errors
    /// There is no answer. One that is not understood is none that says anything: then it needs all.
    pub fn held(&self, diff_ids: &[Digest]) -> Result<Held, DaemonError> {
        let podman = match self.read::<Version>("/version")? {
            Some(version) => version.components.iter().any(|one| one.name.starts_with("Podman")),
            None => return Ok(Held::Nothing),
        };
        if !podman {
            let info = self.read::<Info>("/info")?.and_then(|info| info.driver);
            let mut words = info.iter().flatten().flatten();
            if info.is_none() || words.any(|word| word.starts_with("io.containerd.snapshotter")) {
                return Ok(Held::Nothing);
            }
        }
        let (mut lowest, mut these) = (0, Vec::new());
        for listed in self.read::<Vec<Listed>>("/images/json")?.unwrap_or_default().iter().take(MOST_IMAGES) {
            let image = self.read::<Image>(&format!("/images/{}/json", escaped(&listed.id)))?;
            let layers = image.and_then(|image| image.rootfs.layers).unwrap_or_default();
            lowest = lowest.max(diff_ids.iter().zip(&layers).take_while(|(one, other)| one == other).count());
            these.extend(layers.into_iter().filter(|layer| diff_ids.contains(layer)));
            if lowest == diff_ids.len() {
                break;
            }
        }
        Ok(match podman {
            true if these.is_empty() => Held::Nothing,
            true => Held::These(these),
            false if lowest == 0 => Held::Nothing,
            false => Held::Lowest(lowest),
        })
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<Option<T>, DaemonError> {
        let (status, body) = self.ask(Method::GET, path, None)?;
        Ok(Some(body).filter(|_| status.is_success()).and_then(|body| serde_json::from_slice(&body).ok()))
    }
}
