//! All that can go wrong in a store.

use std::path::PathBuf;

use kiln_core::{Digest, IoError, LayerId};
use serde::{Deserialize, Serialize};

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A newer kiln laid the store out.
    #[error(
        "the store {root} has format {found}, written by a newer kiln; this one reads format {known}: use the newer kiln, or another --root",
        root = root.display()
    )]
    NewerFormat {
        /// The store's directory.
        root: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this kiln knows.
        known: u32,
    },
    /// The directory holds files, but no store.
    #[error("{root} is not empty and not a store of kiln", root = root.display())]
    NotAStore {
        /// The directory.
        root: PathBuf,
    },
    /// The directory belongs to somebody else.
    #[error("the store {root} belongs to another user", root = root.display())]
    NotYours {
        /// The store's directory.
        root: PathBuf,
    },
    /// Files have not the owners that they were given: what steps left would be taken for something else.
    #[error(
        "the files in {root}/full have not the owners that kiln gave them: it was copied without them, or from where other ids are",
        root = root.display()
    )]
    Owners {
        /// The store's directory.
        root: PathBuf,
    },
    /// Bytes are not what their digest says.
    #[error("digest mismatch: {expected} was promised, the bytes have {actual}")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There are more or fewer bytes than promised.
    #[error("size mismatch for {digest}: {expected} bytes were promised, {actual} came")]
    SizeMismatch {
        /// Of what.
        digest: Digest,
        /// What was promised.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// A layer's tar is not the one that the image's configuration names.
    #[error("layer {expected} has other contents than its image says: its tar has diff id {actual}")]
    DiffIdMismatch {
        /// What the configuration says.
        expected: Digest,
        /// What the tar has.
        actual: Digest,
    },
    /// A file that is to be fetched under a name that no file can have.
    #[error("{name:?} is no name for a file")]
    FileName {
        /// The name.
        name: String,
    },
    /// The build was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// A blob is not there.
    #[error("blob {digest} is not in the store")]
    NoBlob {
        /// Which.
        digest: Digest,
    },
    /// A layer's directory is not there.
    #[error("layer {layer} is not in the store")]
    NoLayer {
        /// Which.
        layer: LayerId,
    },
    /// A file that is nearly all hole: a tar has no holes, and whoever unpacks it needs the space.
    #[error(
        "{path} is {size} bytes long, and {data} of them are there: a layer holds the rest as zeros, which everybody who \
         unpacks the image would need the space for; make the file shorter, or remove it in the step that makes it \
         (`useradd --no-log-init`, if it is /var/log/lastlog or faillog)",
        path = path.display()
    )]
    Sparse {
        /// In the image.
        path: PathBuf,
        /// As the file system says.
        size: u64,
        /// On disk.
        data: u64,
    },
    /// A file that an estargz layer cannot hold.
    #[error(
        "{path:?} cannot be in an estargz layer: its list of contents is JSON, and {what} is not UTF-8; take compression=gzip or zstd"
    )]
    Estargz {
        /// In the layer; what is no UTF-8 in it is replaced.
        path: String,
        /// Which text.
        what: String,
    },
    /// A path that nobody can unpack.
    #[error(
        "a layer cannot hold a path of {length} bytes (4095 at most): {start}...",
        start = path.display().to_string().chars().take(80).collect::<String>()
    )]
    LongPath {
        /// In the layer.
        path: PathBuf,
        /// Its length, bytes.
        length: usize,
    },
    /// A layer's media type says something that kiln cannot read.
    #[error("layers of type {media_type:?} are not supported yet; gzip, zstd and plain tar are")]
    MediaType {
        /// As the manifest has it.
        media_type: String,
    },
    /// A layer's compressed bytes are damaged.
    #[error("layer {layer} cannot be decompressed: {reason}")]
    Decompress {
        /// Its diff id.
        layer: Digest,
        /// What the decompressor says.
        reason: String,
    },
    /// Reading a layer's bytes from where they come failed.
    #[error("layer {layer} cannot be read: {message}")]
    LayerRead {
        /// Its diff id.
        layer: Digest,
        /// What the reader says.
        message: String,
    },
    /// A layer's tar breaks the format, or means harm.
    #[error("layer {layer} cannot be unpacked: entry {entry:?}: {problem}")]
    BadEntry {
        /// Its diff id.
        layer: Digest,
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// A layer is larger than allowed.
    #[error("layer {layer} is too large: more than {limit} {unit}")]
    TooLarge {
        /// Its diff id.
        layer: Digest,
        /// What is allowed.
        limit: u64,
        /// Of what: `bytes`, `entries`.
        unit: String,
    },
    /// A layer or an archive of images from elsewhere cannot be read.
    #[error("{name}: {error}")]
    Archive {
        /// What it is called.
        name: String,
        /// What is wrong with it.
        error: ArchiveError,
    },
    /// A value cannot be written as JSON.
    #[error("record {key:?} cannot be written: {reason}")]
    Encode {
        /// The record's key.
        key: String,
        /// Why.
        reason: String,
    },
    /// A name that an image cannot be kept under.
    #[error("image {name} has a digest; a tag is needed to name an image in the store")]
    NoTag {
        /// As given.
        name: String,
    },
}

/// Why a tar cannot be unpacked, wherever it comes from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ArchiveError {
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The compressed bytes are damaged.
    #[error("it cannot be decompressed: {reason}")]
    Decompress {
        /// What the decompressor says.
        reason: String,
    },
    /// Reading the bytes from where they come failed.
    #[error("it cannot be read: {message}")]
    Read {
        /// What the reader says.
        message: String,
    },
    /// An entry breaks the format, or means harm.
    #[error("entry {entry:?}: {problem}")]
    Entry {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// It is larger than allowed.
    #[error("it is too large: more than {limit} {unit}")]
    TooLarge {
        /// What is allowed.
        limit: u64,
        /// Of what: `bytes`, `entries`.
        unit: String,
    },
}

impl ArchiveError {
    /// Says which layer it is about.
    pub(crate) fn of_layer(self, layer: Digest) -> StoreError {
        match self {
            Self::Io(error) => StoreError::Io(error),
            Self::Decompress { reason } => StoreError::Decompress { layer, reason },
            Self::Read { message } => StoreError::LayerRead { layer, message },
            Self::Entry { entry, problem } => StoreError::BadEntry { layer, entry, problem },
            Self::TooLarge { limit, unit } => StoreError::TooLarge { layer, limit, unit },
        }
    }
}

/// What is wrong with one entry of a tar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum EntryProblem {
    /// A `..` in the name.
    #[error("its name has a `..`")]
    DotDot,
    /// An empty name, or one with a NUL.
    #[error("its name is empty or has a NUL byte")]
    Name,
    /// A name, link target or attribute set beyond all bounds.
    #[error("its {what} is longer than {limit} bytes")]
    TooLong {
        /// `name`, `link target`, `extended header`.
        what: String,
        /// In bytes.
        limit: u64,
    },
    /// The parent is not a directory, or a link that leads nowhere.
    #[error("its parent directory {parent:?} cannot be used: {reason}")]
    Parent {
        /// The parent's path.
        parent: String,
        /// The system's words.
        reason: String,
    },
    /// A hard link to something that is not there (yet).
    #[error("it is a hard link to {target:?}, which does not come before it")]
    LinkTarget {
        /// As written.
        target: String,
    },
    /// A hard link to a directory.
    #[error("it is a hard link to the directory {target:?}")]
    LinkToDirectory {
        /// As written.
        target: String,
    },
    /// A sparse file.
    #[error("sparse files are not supported yet")]
    Sparse,
    /// An entry type that tar does not define.
    #[error("its type {kind:?} is not supported")]
    Kind {
        /// The type flag.
        kind: char,
    },
    /// A number, a checksum or an extended header that cannot be read.
    #[error("its header is damaged: {what}")]
    Header {
        /// Which part.
        what: String,
    },
    /// The tar ends too early.
    #[error("the tar ends in the middle of it")]
    Truncated,
    /// The root of the tree as something else than a directory.
    #[error("the root of the layer is not a directory")]
    Root,
    /// All of the layers below deleted at once: overlay knows no opaque root.
    #[error("deleting everything below with an opaque root directory is not supported yet")]
    OpaqueRoot,
}

impl StoreError {
    /// Returns whether the file system had no room (or no quota) left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io(error) if error.is_full())
    }
}
