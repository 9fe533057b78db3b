//! Writing a layout as one tar, for OCI readers and for docker's.

use std::collections::HashSet;
use std::io::{self, Read as _, Write};
use std::path::Path;

use kiln_core::{Digest, IoError, IoResultExt as _};

use super::{LAYOUT_VERSION, Root, blob_path, index, walk};
use crate::{BlobInfo, BlobSource, Children, OciError, children, json};

/// What an archive is written into.
pub trait ArchiveWriter: Write {
    /// Asked where a blob's content comes: whether it is there already, and the next bytes go behind it.
    ///
    /// # Errors
    /// What was written before could not be.
    fn has(&mut self, digest: &Digest, size: u64) -> io::Result<bool>;
}

/// Bytes of an archive before the first layer's header.
pub const ARCHIVE_HEAD: u64 = 4 * BLOCK;

/// Returns how many bytes a file of a size takes in an archive: a header of 512, and whole blocks.
pub const fn archive_entry(size: u64) -> u64 {
    BLOCK + size.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// Writes a layout archive: `oci-layout`, the layers in the images' order, the other blobs sorted by digest, `index.json`; owner root,
/// times 0. Equal images give equal bytes. Layers are first so that they can be written before the rest is known.
///
/// # Errors
/// A blob is missing or of another size; the writer fails (the path in that error is "the archive").
pub fn write_layout_tar(
    writer: &mut dyn Write,
    roots: &[Root<'_>],
    blobs: &dyn BlobSource,
) -> Result<(), OciError> {
    write(&mut Stream(writer), roots, blobs, None, &HashSet::new())
}

/// Writes either archive, docker's or not, into a file that may have layers already.
///
/// # Errors
/// As without.
pub fn write_archive_into(
    writer: &mut dyn ArchiveWriter,
    roots: &[Root<'_>],
    blobs: &dyn BlobSource,
    docker: bool,
) -> Result<(), OciError> {
    let list = if docker { Some(docker_list(roots)?) } else { None };
    write(writer, roots, blobs, list, &HashSet::new())
}

/// Either archive for a reader that has some blobs: these are named in it, and not there.
///
/// # Errors
/// As without.
pub fn write_partial_archive(
    writer: &mut dyn Write,
    root: &Root<'_>,
    blobs: &dyn BlobSource,
    absent: &HashSet<Digest>,
    docker: bool,
) -> Result<(), OciError> {
    let roots = std::slice::from_ref(root);
    let list = if docker { Some(docker_list(roots)?) } else { None };
    write(&mut Stream(writer), roots, blobs, list, absent)
}

/// Writes what `docker load` and `podman load` take: docker's `manifest.json` for those that know nothing else, in an
/// OCI layout archive for those that do (docker 25 and later write the same mixture). Layers stay compressed. An image with OCI media types is read by
/// the most tools: `manifest.json` names none, and skopeo finds no docker manifest in an OCI archive.
///
/// # Errors
/// As [`write_layout_tar`]; and a root that is an index: the format has no platforms.
pub fn write_docker_archive(
    writer: &mut dyn Write,
    roots: &[Root<'_>],
    blobs: &dyn BlobSource,
) -> Result<(), OciError> {
    write(&mut Stream(writer), roots, blobs, Some(docker_list(roots)?), &HashSet::new())
}

/// Docker's `manifest.json`.
fn docker_list(roots: &[Root<'_>]) -> Result<Vec<u8>, OciError> {
    let images: Vec<serde_json::Value> = roots
        .iter()
        .map(|root| match children(root.document)? {
            Children::Manifest { config, layers } => Ok(serde_json::json!({
                "Config": blob_path(&config.digest),
                "RepoTags": root.names.iter().map(kiln_core::ImageRef::familiar).collect::<Vec<_>>(),
                "Layers": layers.iter().map(|layer| blob_path(&layer.digest)).collect::<Vec<_>>(),
            })),
            Children::Index(_) => Err(OciError::MediaType {
                what: "the image for a docker archive, which holds one platform,".to_owned(),
                media_type: root.document.media_type.clone(),
            }),
        })
        .collect::<Result<_, _>>()?;
    Ok(json::compact(&images).into_bytes())
}

fn write(
    writer: &mut dyn ArchiveWriter,
    roots: &[Root<'_>],
    blobs: &dyn BlobSource,
    docker: Option<Vec<u8>>,
    absent: &HashSet<Digest>,
) -> Result<(), OciError> {
    let mut all = walk::collect(roots, blobs)?;
    let mut index = index::empty();
    for root in roots {
        index::add(&mut index, root);
    }
    let layout = format!("{{\"imageLayoutVersion\":\"{LAYOUT_VERSION}\"}}");
    let mut tar = Tar { writer };
    tar.file("oci-layout", layout.as_bytes())?;
    tar.header("blobs/", tar::EntryType::Directory, 0)?;
    tar.header("blobs/sha256/", tar::EntryType::Directory, 0)?;
    all.blobs.retain(|digest, _| !absent.contains(digest));
    for info in all.layers.iter().filter_map(|digest| all.blobs.remove(digest)) {
        tar.blob(&info, blobs)?;
    }
    for info in all.blobs.values() {
        match roots.iter().find(|root| root.document.digest == info.digest) {
            Some(root) => tar.file(&blob_path(&info.digest), &root.document.bytes)?,
            None => tar.blob(info, blobs)?,
        }
    }
    tar.file("index.json", &json::index(&index))?;
    if let Some(docker) = docker {
        tar.file("manifest.json", &docker)?;
    }
    tar.end()
}

/// The few kinds of entries needed. Not `tar::Builder`: it copies through 8 KiB and wants a writer by value.
struct Tar<'a> {
    writer: &'a mut dyn ArchiveWriter,
}

/// What has nothing yet.
struct Stream<'a>(&'a mut dyn Write);

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl ArchiveWriter for Stream<'_> {
    fn has(&mut self, _: &Digest, _: u64) -> io::Result<bool> {
        Ok(false)
    }
}

impl Tar<'_> {
    fn header(&mut self, name: &str, kind: tar::EntryType, size: u64) -> Result<(), OciError> {
        let mut header = tar::Header::new_ustar();
        // Names here are ASCII of less than 100 bytes.
        header.set_path(name).at("name an entry of", ARCHIVE)?;
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), OciError> {
        self.header(name, tar::EntryType::Regular, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn blob(&mut self, info: &BlobInfo, blobs: &dyn BlobSource) -> Result<(), OciError> {
        let BlobInfo { digest, size: wanted, .. } = *info;
        self.header(&blob_path(&digest), tar::EntryType::Regular, wanted)?;
        if self.writer.has(&digest, wanted).at("write", ARCHIVE)? {
            return self.pad(wanted);
        }
        let mut from = blobs.open(&digest)?;
        let mut buffer = vec![0; BUFFER];
        let mut actual = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(IoError::new("read", digest.to_string(), &error).into()),
            };
            actual += count as u64;
            if actual > wanted {
                return Err(OciError::SizeMismatch { digest, wanted, actual });
            }
            self.write(&buffer[..count])?;
        }
        if actual != wanted {
            return Err(OciError::SizeMismatch { digest, wanted, actual });
        }
        self.pad(wanted)
    }

    fn pad(&mut self, size: u64) -> Result<(), OciError> {
        let rest = (size % BLOCK) as usize;
        if rest == 0 { Ok(()) } else { self.write(&[0; BLOCK as usize][rest..]) }
    }

    /// Two blocks of zeros end a tar.
    fn end(&mut self) -> Result<(), OciError> {
        self.write(&[0; 2 * BLOCK as usize])?;
        Ok(self.writer.flush().at("write", ARCHIVE)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OciError> {
        Ok(self.writer.write_all(bytes).at("write", Path::new(ARCHIVE))?)
    }
}

const ARCHIVE: &str = "the archive";
const BLOCK: u64 = 512;
const BUFFER: usize = 256 << 10;
