//! What packages a file tree holds: read from what package managers and compilers leave in it, nothing is executed and
//! nothing asked of a network. No I/O of its own: the tree is a [`FileTree`], given by the caller.
//!
//! The tree is somebody else's. A database that is cut off, too large or not what its name says becomes a [`Note`];
//! what can be read is read. Equal trees give equal documents.
//!
//! ```
//! use kiln_sbom::{MemoryTree, Subject, inventory, spdx};
//!
//! let mut tree = MemoryTree::default();
//! tree.add("lib/apk/db/installed", "P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n");
//! let found = inventory(&tree);
//! assert_eq!(found.packages[0].purl(found.distribution.as_ref()), "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64");
//! let document = spdx(&found, &Subject::directory("rootfs"), 0);
//! assert_eq!(document["spdxVersion"], "SPDX-2.3");
//! ```

mod found;
mod licence;
mod memory;
mod os_release;
mod package;
mod purl;
mod readers;
mod spdx;
mod stanza;
mod tree;
mod walk;

pub use found::{Inventory, Note};
pub use memory::MemoryTree;
pub use os_release::Distribution;
pub use package::{Checksum, Ecosystem, Package};
pub use purl::Purl;
pub use spdx::{Subject, rfc3339, spdx};
pub use tree::{Entry, FileTree, Kind, Opened};
pub use walk::inventory;
