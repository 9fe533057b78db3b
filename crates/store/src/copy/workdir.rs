//! WORKDIR.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::layer::{DirMeta, LayerDir, image_path};
use super::{CopyError, CopyRules};
use crate::tree::resolve::Found;

/// Makes a directory of the image, with what leads to it, in a fresh layer: 0755, owned as the rules say. Returns
/// whether anything had to be made; the layer stays empty otherwise.
///
/// # Errors
/// A file is in the way; the file system failed.
pub fn make_dir(
    layer: &Path,
    parent: Option<BorrowedFd<'_>>,
    path: &str,
    rules: &CopyRules,
) -> Result<bool, CopyError> {
    let mut layer = LayerDir::open(layer, parent, rules.ids)?;
    let dest = layer.resolve(path, &mut |path| layer.look(path))?;
    match dest.found {
        Found::Dir => return Ok(false),
        Found::Other | Found::Link(_) => {
            return Err(CopyError::FileInTheWay { path: image_path(&dest.path) });
        }
        Found::Missing => {}
    }
    let mtime = super::place::undated(rules.epoch);
    layer.make_dir(
        &dest.path,
        &DirMeta { mode: 0o755, owner: Some(rules.owner.unwrap_or_default()), mtime, xattrs: None },
    )?;
    layer.finish()?;
    Ok(true)
}
