//! What a copy made last, so that the next one shares the files that did not change.

use kiln_core::{Canonical, CopyOp, LayerId, Purpose};
use kiln_store::copy::{CopyManifest, Reuse};
use kiln_store::{RecordKind, Store};

use crate::Error;

/// The place of one COPY, whatever it copies and over whatever root.
pub(crate) struct LastCopy {
    key: String,
}

impl LastCopy {
    /// Names the place by all of the operation but its inputs, with the paths that it selects.
    pub(crate) fn of(op: &CopyOp) -> Self {
        let mut out = Canonical::new("last copy");
        kiln_core::Op::Copy(op.clone()).encode(Purpose::Key, &mut out);
        for (_, selection) in kiln_core::Op::Copy(op.clone()).sources() {
            selection.encode(&mut out);
        }
        Self { key: out.finish().hex() }
    }

    /// Returns what the copy made last, if it is still there.
    pub(crate) fn reuse(&self, store: &Store) -> Result<Option<Reuse>, Error> {
        let Some(layer) = store.get_record::<LayerId>(RecordKind::LastCopy, &self.key)? else {
            return Ok(None);
        };
        if !store.has_layer(&layer) {
            return Ok(None);
        }
        Ok(store.reuse(&layer))
    }

    /// Notes what it made now.
    pub(crate) fn keep(&self, store: &Store, layer: &LayerId, copied: &CopyManifest) -> Result<(), Error> {
        let last = store.peek_record::<LayerId>(RecordKind::LastCopy, &self.key)?;
        if let Some(last) = &last {
            store.shares_files(last);
        }
        store.note_copy(layer, copied, last.as_ref())?;
        Ok(store.put_record(RecordKind::LastCopy, &self.key, layer)?)
    }
}
