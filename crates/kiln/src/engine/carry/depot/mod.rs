//! Where exports are: each kind of place reads and writes blobs and generations.

mod archive;
mod directory;
mod registry;

use kiln_carry::{Generation, Pointer};
use kiln_core::{Cancel, Digest};
use kiln_registry::RegistryClient;
use kiln_store::Store;

pub(super) use archive::Archive;
pub(super) use directory::Directory;
pub(super) use registry::Registry;

use crate::Error;
use crate::request::CarryPlace;

/// A place with exports.
pub(super) trait Depot: Sync {
    /// The generations that are there; none if nothing is.
    fn pointer(&self) -> Result<Pointer, Error>;

    /// A blob or a manifest, verified, of at most so many bytes.
    fn get(&self, digest: &Digest, size: u64, manifest: bool) -> Result<Vec<u8>, Error>;

    /// Makes a blob present. Returns the bytes that were moved for it.
    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<u64, Error>;

    /// Makes a generation known, whose blobs are there, and lets go of the oldest; the name then stands for at most `keep`.
    fn publish(&self, generation: &New<'_>, keep: usize) -> Result<Published, Error>;
}

/// A generation that is to be published.
pub(super) struct New<'a> {
    /// With digest and size of its manifest.
    pub(super) generation: &'a Generation,
    pub(super) manifest: &'a [u8],
    pub(super) config: &'a [u8],
    /// Index and packs.
    pub(super) blobs: &'a [(Digest, u64)],
}

/// How a generation was published.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// What one should know: old generations stay, say.
    pub(super) notes: Vec<String>,
}

/// Opens a place. `writes` says that it will be written to.
pub(super) fn open<'a>(
    place: &CarryPlace,
    writes: bool,
    registry: &'a RegistryClient,
    store: &Store,
    cancel: &Cancel,
) -> Result<Box<dyn Depot + 'a>, Error> {
    Ok(match place {
        CarryPlace::Registry(name) => Box::new(Registry::new(registry, name.clone())),
        CarryPlace::Directory { path, tag } => Box::new(Directory::open(path, tag)?),
        CarryPlace::Archive { path, tag } => {
            Box::new(Archive::open(path.as_deref(), tag, writes, store, cancel)?)
        }
    })
}
