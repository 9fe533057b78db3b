//! A tar of an OCI layout: a file, or standard input and output. It holds one generation and is written anew each time; what an
//! earlier one at its place has packed is copied and not packed again.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kiln_carry::{CarryError, MAX_PACK, PACK_TYPE, POINTER_TYPE, Pointer};
use kiln_core::{Cancel, Digest, IoError, IoResultExt as _};
use kiln_oci::{BlobInfo, Layout};
use kiln_store::{Spooled, Store};
use serde_json::json;
use tempfile::NamedTempFile;

use super::directory::{MARKER, entry};
use super::{Content, Depot, New, Published};
use crate::{CarryFailure, Error};

pub(crate) struct Archive {
    path: Option<PathBuf>,
    tag: String,
    /// What is there.
    old: Option<Layout>,
    _spooled: Option<Spooled>,
    new: Mutex<Writing>,
}

/// What is being written.
#[derive(Default)]
struct Writing {
    tar: Option<tar::Builder<Sink>>,
    there: std::collections::HashSet<Digest>,
}

enum Sink {
    File(BufWriter<NamedTempFile>),
    Out(BufWriter<io::Stdout>),
    /// A pipe or a device: never renamed over.
    Pipe(BufWriter<File>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Out(out) => out.write(bytes),
            Self::Pipe(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Out(out) => out.flush(),
            Self::Pipe(out) => out.flush(),
        }
    }
}

impl Archive {
    pub(super) fn open(
        path: Option<&Path>,
        tag: &str,
        writes: bool,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        // A link stays one.
        let path = path.map(|path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
        let tag = tag.to_owned();
        let (mut old, mut spooled) = (None, None);
        match &path {
            None if writes => {}
            None => {
                let kept = store.spool("standard input", io::stdin().lock(), cancel)?;
                old = Some(Layout::open(kept.path())?);
                spooled = Some(kept);
            }
            Some(path) if writes => {
                // What is there and is no export is not taken for one, and not overwritten either.
                if path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0) {
                    old = Some(Layout::open(path)?);
                }
            }
            Some(path) => {
                // A compressed one is read, too.
                let file = File::open(path).at("open", path)?;
                old = match Layout::open(path) {
                    Ok(layout) => Some(layout),
                    Err(_) => {
                        let kept = store.spool(&path.display().to_string(), file, cancel)?;
                        let layout = Layout::open(kept.path())?;
                        spooled = Some(kept);
                        Some(layout)
                    }
                };
            }
        }
        Ok(Self { path, tag, old, _spooled: spooled, new: Mutex::default() })
    }

    fn carry(&self, error: CarryError) -> Error {
        let place = self.path.as_ref().map_or("standard input".to_owned(), |path| path.display().to_string());
        Error::Carry(CarryFailure::Place { place, error })
    }

    fn name(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| "standard output".into())
    }

    fn append(&self, new: &mut Writing, name: &str, content: &Content<'_>) -> Result<(), Error> {
        let path = self.name();
        if new.tar.is_none() {
            new.tar = Some(tar::Builder::new(self.sink()?));
        }
        let Some(tar) = &mut new.tar else { return Ok(()) };
        let mut header = tar::Header::new_ustar();
        header.set_size(content.size());
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, name, content.reader()).at("write", &path)?;
        Ok(())
    }

    /// Whether a file is made; else it is a pipe or a device, or standard output.
    fn is_file(&self) -> bool {
        self.path
            .as_ref()
            .is_some_and(|path| !path.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir()))
    }

    fn sink(&self) -> Result<Sink, Error> {
        let Some(path) = &self.path else { return Ok(Sink::Out(BufWriter::new(io::stdout()))) };
        if !self.is_file() {
            let pipe = File::options().write(true).open(path).at("open", path)?;
            return Ok(Sink::Pipe(BufWriter::new(pipe)));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let half = tempfile::Builder::new()
            .prefix(".kiln-")
            // As any program's output: less what the umask takes.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(dir)
            .at("create a file in", dir)?;
        Ok(Sink::File(BufWriter::with_capacity(256 << 10, half)))
    }

    fn blob(&self, layout: &Layout, digest: &Digest, size: u64, into: &mut Vec<u8>) -> Result<(), Error> {
        let info = BlobInfo { media_type: PACK_TYPE.to_owned(), digest: *digest, size };
        into.clear();
        into.reserve_exact(usize::try_from(size.min(MAX_PACK)).unwrap_or(0) + 1);
        layout.blob(&info)?.take(size + 1).read_to_end(into).map_err(|error| {
            crate::engine::arrival::of_source(&error)
                .unwrap_or_else(|| IoError::new("read", digest.to_string(), &error).into())
        })?;
        Ok(())
    }
}

impl Depot for Archive {
    fn pointer(&self) -> Result<Pointer, Error> {
        let Some(layout) = &self.old else { return Ok(Pointer::default()) };
        // What says that it is no image counts among the others.
        let entries = [layout.artifacts()?, layout.entries()?].concat();
        let entry = match &entries[..] {
            [only] => only,
            all => all.iter().find(|entry| entry.tag.as_deref() == Some(&self.tag)).ok_or_else(|| {
                self.carry(CarryError::Foreign { reason: format!("nothing in it is named {:?}", self.tag) })
            })?,
        };
        let mut bytes = Vec::new();
        self.blob(layout, &entry.info.digest, entry.info.size.min(kiln_oci::MAX_DOCUMENT), &mut bytes)?;
        Pointer::read(&bytes).map_err(|error| self.carry(error))
    }

    fn senders(&self) -> usize {
        // What reads the other end of a pipe may take its time.
        usize::from(!self.is_file())
    }

    fn read(&self, digest: &Digest, size: u64, _manifest: bool, into: &mut Vec<u8>) -> Result<(), Error> {
        match &self.old {
            Some(layout) => self.blob(layout, digest, size, into),
            None => Err(self.carry(CarryError::Damaged { reason: format!("it lacks {digest}") })),
        }
    }

    fn put(&self, digest: &Digest, content: &Content<'_>) -> Result<u64, Error> {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        if !new.there.insert(*digest) {
            return Ok(0);
        }
        self.append(&mut new, &format!("blobs/sha256/{}", digest.hex()), content)?;
        Ok(content.size())
    }

    fn publish(&self, generation: &New<'_>, _keep: usize) -> Result<Published, Error> {
        for (digest, size) in generation.blobs {
            let written = self.new.lock().unwrap_or_else(PoisonError::into_inner).there.contains(digest);
            if !written {
                self.put(digest, &Content::Memory(&self.get(digest, *size, false)?))?;
            }
        }
        self.put(&Digest::of(generation.config), &Content::Memory(generation.config))?;
        self.put(&generation.generation.digest, &Content::Memory(generation.manifest))?;
        let bytes = Pointer { generations: vec![generation.generation.clone()] }.write();
        let digest = Digest::of(&bytes);
        self.put(&digest, &Content::Memory(&bytes))?;
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": POINTER_TYPE,
            "manifests": [entry(&digest, bytes.len(), &self.tag)],
        });
        self.append(&mut new, "index.json", &Content::Memory(index.to_string().as_bytes()))?;
        self.append(&mut new, "oci-layout", &Content::Memory(MARKER))?;
        let path = self.name();
        let Some(tar) = new.tar.take() else { return Ok(Published::default()) };
        match tar.into_inner().at("write", &path)? {
            Sink::Out(mut out) => out.flush().at("write", &path)?,
            Sink::Pipe(mut out) => out.flush().at("write", &path)?,
            Sink::File(file) => {
                let half = file.into_inner().map_err(|error| error.into_error()).at("write", &path)?;
                half.persist(&path).map_err(|error| error.error).at("rename to", &path)?;
            }
        }
        Ok(Published::default())
    }
}
