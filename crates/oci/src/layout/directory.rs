//! Writing a layout as a directory, or into one.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kiln_core::{IoError, IoResultExt as _};

use super::{LAYOUT_VERSION, Root, blob_path, index, walk};
use crate::{BlobInfo, BlobSource, OciError, json};

/// Writes images into a layout directory, which is made if it is not there and added to if it is: names that it has
/// already move to the new images.
///
/// Each file appears by rename and `index.json` last, so that whoever reads meanwhile, or after a crash, finds a
/// complete layout with or without the new images. Several processes may write into one directory.
///
/// A blob with a [`path`](BlobSource::path) to a file that nobody may write is hard linked where that is possible (one
/// inode, so no write bit must be there to change both). Else it is copied by copy_file_range(2), which file systems
/// with reflinks answer with one.
///
/// # Errors
/// The directory holds something else; a blob is missing or of another size; file operations.
pub fn write_layout_dir(dest: &Path, roots: &[Root<'_>], blobs: &dyn BlobSource) -> Result<(), OciError> {
    let all = walk::collect(roots, blobs)?;
    prepare(dest)?;
    for info in all.blobs.values() {
        let document = roots.iter().find(|root| root.document.digest == info.digest);
        match document {
            Some(root) => put(dest, info, &mut |file| file.write_all(&root.document.bytes))?,
            None => blob(dest, info, blobs)?,
        }
    }
    // The lock goes with the descriptor; a file of its own would stay behind in the user's directory.
    let lock = File::open(dest).at("open", dest)?;
    lock.lock().at("lock", dest)?;
    let path = dest.join("index.json");
    let mut current = match fs::read(&path) {
        Ok(bytes) => index::parse(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => index::empty(),
        Err(error) => return Err(IoError::new("read", &path, &error).into()),
    };
    for root in roots {
        index::add(&mut current, root);
    }
    let bytes = json::index(&current);
    replace(dest, &path, &mut |file| file.write_all(&bytes))?;
    Ok(())
}

fn prepare(dest: &Path) -> Result<(), OciError> {
    let blobs = dest.join("blobs/sha256");
    let marker = dest.join("oci-layout");
    if !marker.exists() && dest.exists() {
        for entry in fs::read_dir(dest).at("read", dest)? {
            let name = entry.at("read", dest)?.file_name();
            let name = name.to_string_lossy();
            let ours = name == "blobs" || name.starts_with(TEMPORARY);
            // Another process may have made it a layout since we looked.
            if !ours && !marker.exists() {
                let reason = format!("it is a directory with other files, such as {name}");
                return Err(OciError::NotALayout { path: dest.to_owned(), reason });
            }
        }
    }
    fs::create_dir_all(&blobs).at("create directory", &blobs)?;
    if !marker.exists() {
        let content = format!("{{\"imageLayoutVersion\":\"{LAYOUT_VERSION}\"}}");
        replace(dest, &marker, &mut |file| file.write_all(content.as_bytes()))?;
    }
    Ok(())
}

fn blob(dest: &Path, info: &BlobInfo, blobs: &dyn BlobSource) -> Result<(), OciError> {
    let path = dest.join(blob_path(&info.digest));
    if let Some(source) = blobs.path(&info.digest) {
        if has_size(&path, info.size) {
            return Ok(());
        }
        let meta = fs::metadata(&source).at("stat", &source)?;
        if meta.len() != info.size {
            let (digest, wanted, actual) = (info.digest, info.size, meta.len());
            return Err(OciError::SizeMismatch { digest, wanted, actual });
        }
        // Not where links do not go (another file system, protected_hardlinks), nor over a damaged file: those are copied.
        if meta.permissions().mode() & 0o222 == 0 && fs::hard_link(&source, &path).is_ok() {
            return Ok(());
        }
        let mut from = File::open(&source).at("open", &source)?;
        return put(dest, info, &mut |file| io::copy(&mut from, file).map(drop));
    }
    let mut from = blobs.open(&info.digest)?;
    put(dest, info, &mut |file| {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok(()),
                count => file.write_all(&buffer[..count])?,
            }
        }
    })
}

fn put(
    dest: &Path,
    info: &BlobInfo,
    fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> Result<(), OciError> {
    let path = dest.join(blob_path(&info.digest));
    if has_size(&path, info.size) {
        return Ok(());
    }
    let temporary = write_temporary(dest, &path, fill)?;
    let actual = temporary.as_file().metadata().at("stat", &path)?.len();
    if actual != info.size {
        return Err(OciError::SizeMismatch { digest: info.digest, wanted: info.size, actual });
    }
    temporary.persist(&path).at("rename to", &path)?;
    Ok(())
}

fn replace(
    dest: &Path,
    path: &Path,
    fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> Result<(), IoError> {
    write_temporary(dest, path, fill)?.persist(path).at("rename to", path)?;
    Ok(())
}

const TEMPORARY: &str = ".kiln-";

/// Beside `blobs/`, not in it: there, every file's name is a digest.
fn write_temporary(
    dest: &Path,
    path: &Path,
    fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> Result<tempfile::NamedTempFile, IoError> {
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dest)
        .at("create a file in", dest)?;
    fill(temporary.as_file_mut()).at("write", path)?;
    Ok(temporary)
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size)
}
