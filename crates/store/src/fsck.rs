//! Looks for what must not be: used by tests and by people who suspect their disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_core::IoResultExt as _;
use serde::{Deserialize, Serialize};

use crate::collect::records;
use crate::durable::{children, digest_of};
use crate::error::StoreError;
use crate::image;
use crate::layer::LayerInfo;
use crate::layer::kept::{KEPT_FILE, is_kept};
use crate::layout::{self, Ids, TREE};
use crate::lock::FileLock;
use crate::record::RecordKind;
use crate::source::is_whole;
use crate::store::Store;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize)]
pub enum Problem {
    /// A blob's bytes have another digest than its name says.
    #[error("blob {path} is damaged: its bytes have {actual}", path = path.display())]
    Blob {
        /// In the store.
        path: PathBuf,
        /// What the bytes have.
        actual: String,
    },
    /// A layer without its tree or the facts about it.
    #[error("layer {path} is incomplete", path = path.display())]
    Layer {
        /// In the store.
        path: PathBuf,
    },
    /// A fetched source that is not what its name says.
    #[error("source {path} is damaged", path = path.display())]
    Source {
        /// In the store.
        path: PathBuf,
    },
    /// A record or an image name that cannot be read.
    #[error("{path} is damaged", path = path.display())]
    Record {
        /// In the store.
        path: PathBuf,
    },
    /// A record or an image name that needs what is not there.
    #[error("{path} names {missing}, which is not there", path = path.display())]
    Dangling {
        /// In the store.
        path: PathBuf,
        /// A layer or a blob.
        missing: String,
    },
    /// Something half-made that no living process owns.
    #[error("{path} is left over from a process that is gone", path = path.display())]
    LeftOver {
        /// In the store.
        path: PathBuf,
    },
}

impl Store {
    /// Looks at everything; reads every blob and every fetched file. Sorted; empty if all is well. Builds that run meanwhile may show up as
    /// problems that are none.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn fsck(&self) -> Result<Vec<Problem>, StoreError> {
        let mut found = BTreeSet::new();
        self.check_blobs(&mut found)?;
        self.check_layers(&mut found)?;
        for path in children(&self.0.layout.at(layout::SOURCES))? {
            if !is_whole(&path)? {
                found.insert(Problem::Source { path: self.below(&path) });
            }
        }
        self.check_records(&mut found)?;
        self.check_images(&mut found)?;
        for path in children(&self.0.layout.at(layout::SCRATCH))? {
            if FileLock::try_exclusive_dir(&path)?.is_some() {
                found.insert(Problem::LeftOver { path: self.below(&path) });
            }
        }
        Ok(found.into_iter().collect())
    }

    fn check_blobs(&self, found: &mut BTreeSet<Problem>) -> Result<(), StoreError> {
        for path in children(&self.0.layout.at(layout::BLOBS))? {
            let actual = digest_of(&path)?;
            if path.file_name().is_none_or(|name| *name != *actual.hex()) {
                found.insert(Problem::Blob { path: self.below(&path), actual: actual.to_string() });
            }
        }
        Ok(())
    }

    fn check_layers(&self, found: &mut BTreeSet<Problem>) -> Result<(), StoreError> {
        for ids in [Ids::Full, Ids::Single] {
            for path in children(&self.0.layout.at(ids.dir()).join(layout::LAYERS))? {
                if LayerInfo::read(&path).is_err() || !path.join(TREE).is_dir() {
                    found.insert(Problem::Layer { path: self.below(&path) });
                }
                if is_kept(&path) {
                    let text = std::fs::read(path.join(KEPT_FILE)).unwrap_or_default();
                    match serde_json::from_slice(&text) {
                        Ok(value) => self.check_snapshots(&value, ids, &path, found),
                        Err(_) => _ = found.insert(Problem::Layer { path: self.below(&path) }),
                    }
                }
            }
        }
        Ok(())
    }

    fn check_records(&self, found: &mut BTreeSet<Problem>) -> Result<(), StoreError> {
        for (kind, ids, path) in records(&self.0.layout)? {
            let text = std::fs::read(&path).at("read", &path)?;
            let Ok(value) = serde_json::from_slice::<serde_json::Value>(&text) else {
                found.insert(Problem::Record { path: self.below(&path) });
                continue;
            };
            // What is told of a build names layers of bases, too, which nobody may have needed.
            if let Some(ids) = ids
                && kind != RecordKind::Build
            {
                self.check_snapshots(&value, ids, &path, found);
            }
        }
        Ok(())
    }

    fn check_snapshots(
        &self,
        value: &serde_json::Value,
        ids: Ids,
        path: &Path,
        found: &mut BTreeSet<Problem>,
    ) {
        let layers = self.0.layout.at(ids.dir()).join(layout::LAYERS);
        snapshots(value, &mut |layer| {
            if !layers.join(layer).is_dir() {
                let missing = format!("layer {layer}");
                found.insert(Problem::Dangling { path: self.below(path), missing });
            }
        });
    }

    fn check_images(&self, found: &mut BTreeSet<Problem>) -> Result<(), StoreError> {
        let readable = self.images()?;
        let files = image::files(&self.0.layout)?;
        for path in files {
            let text = std::fs::read(&path).at("read", &path)?;
            let tagged = readable.iter().find(|image| self.tag_path(&image.name).is_ok_and(|at| at == path));
            let Some(tagged) = tagged.filter(|_| !text.is_empty()) else {
                found.insert(Problem::Record { path: self.below(&path) });
                continue;
            };
            if !self.blob_path(&tagged.digest).exists() {
                let missing = format!("blob {}", tagged.digest);
                found.insert(Problem::Dangling { path: self.below(&path), missing });
            }
        }
        Ok(())
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root()).unwrap_or(path).to_owned()
    }
}

/// Calls `visit` with the layers of every [`kiln_core::Snapshot`] in a record: lists of names under `layers`.
fn snapshots(value: &serde_json::Value, visit: &mut dyn FnMut(&str)) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| snapshots(item, visit)),
        serde_json::Value::Object(fields) => {
            for (name, item) in fields {
                match item.as_array() {
                    Some(items) if name == "layers" => {
                        items.iter().filter_map(|item| item.as_str()).for_each(&mut *visit);
                    }
                    _ => snapshots(item, visit),
                }
            }
        }
        _ => {}
    }
}
