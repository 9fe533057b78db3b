//! Cache keys.
//!
//! | part | content key | definition key |
//! |---|---|---|
//! | the operation, as [`Op::encode`] gives it for [`Purpose::Key`] | yes | yes |
//! | root file system | its content key | its content key |
//! | layers of a linked copy | its content key | its content key |
//! | source, a context | digest of the selected files | digest of the selected files |
//! | source, a stage or an image | digest of the selected files | its content key, its snapshot if known, the selection |
//!
//! The content key is a step's canonical key: it is what records are kept under and what goes into the keys of the
//! steps above. A definition key only leads to a content key that was found out earlier; it is cheap because it
//! needs no stage's files.

use kiln_core::{Canonical, Digest, Op, Purpose, Selection, Snapshot};

/// What a step's key is made of besides its operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyInputs {
    /// The root's content key; none for scratch.
    pub root: Option<Digest>,
    /// The content key of the step whose layers go over the root; none for all but a merge.
    pub layers: Option<Digest>,
    /// Its sources, in the order of [`Op::sources`].
    pub sources: Vec<SourceInput>,
}

/// One source of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInput {
    /// Which files of it.
    pub selection: Selection,
    /// The stage's or image's content key; none for a context.
    pub step: Option<Digest>,
    /// The stage's snapshot, where it is known. None for an image: its key says all.
    pub snapshot: Option<Snapshot>,
    /// Digest of the selected files, once known.
    pub content: Option<Digest>,
}

/// Returns the content key of a step that is neither an image nor a context; none while a source's content is not
/// known.
pub fn content_key(op: &Op, inputs: &KeyInputs) -> Option<Digest> {
    let contents: Option<Vec<Digest>> = inputs.sources.iter().map(|source| source.content).collect();
    let mut out = begin("key", op, inputs);
    out.list(&contents?, |content, out| {
        out.digest(content);
    });
    Some(out.finish())
}

/// Returns the definition key. `over` says whether it names the snapshots that the sources had, as far as they are
/// known, or their keys alone: a stage that was made anew under its old key is another snapshot.
pub fn definition_key(op: &Op, inputs: &KeyInputs, over: Snapshots) -> Digest {
    let mut out = begin("definition", op, inputs);
    out.list(&inputs.sources, |source, out| match &source.step {
        None => {
            out.u64(1).option(source.content.as_ref(), |content, out| {
                out.digest(content);
            });
        }
        Some(key) => {
            out.u64(2).digest(key);
            source.selection.encode(out);
            let snapshot = source.snapshot.as_ref().filter(|_| over == Snapshots::Known);
            out.option(snapshot, |snapshot, out| {
                out.list(&snapshot.layers, |layer, out| {
                    out.str(&layer.0);
                });
            });
        }
    });
    out.finish()
}

/// Whether a definition key names snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshots {
    /// Those that are known.
    Known,
    /// None.
    Left,
}

fn begin(domain: &str, op: &Op, inputs: &KeyInputs) -> Canonical {
    let mut out = Canonical::new(domain);
    op.encode(Purpose::Key, &mut out);
    out.option(inputs.root.as_ref(), |root, out| {
        out.digest(root);
    });
    // The kind of step says whether there are any.
    if let Some(layers) = &inputs.layers {
        out.digest(layers);
    }
    out
}
