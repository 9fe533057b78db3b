//! The list of what one build left or found: its records, and which files its steps took, to say what is different elsewhere.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_core::{Digest, ImageRef};
use kiln_oci::{BlobInfo, Document, Documents, media};
use kiln_store::tree::Facts;
use kiln_store::{NoteKind, unpack_note};
use serde::{Deserialize, Serialize};

use super::StepCache;
use super::export::Exporter;
use super::place::{Place, write_list};
use super::record::{Descriptor, EMPTY, EMPTY_TYPE, Entry, Manifest};
use crate::Error;
use crate::engine::arrival::Unseen;
use crate::engine::explain::{BuildElsewhere, StepElsewhere};
use crate::engine::redact::Redactor;
use crate::engine::transfer::{Blobs, Origin, Push};

/// What a list of records is.
const STEPS: &str = "application/vnd.kiln.steps.v1+json";
/// How that begins, whatever the version.
const ANY_STEPS: &str = "application/vnd.kiln.steps.";
/// What a list of selections is, as an artifact: a blob for each.
const FILES: &str = "application/vnd.kiln.files.v1+json";
/// One of its blobs: the files of one selection, compressed.
const FILES_OF: &str = "application/vnd.kiln.files.v1+zstd";
/// The annotation with a selection's content digest.
const CONTENT: &str = "vnd.kiln.content";
/// Records of one list that are looked at.
const MOST_RECORDS: usize = 10_000;
/// Bytes of a list above which records are named without being in it: registries take 4 MiB for a document.
const LARGE_LIST: usize = 2 << 20;
/// Selections whose files a list speaks of, and bytes of one, compressed and not.
const MOST_FILES: usize = 64;
const LARGE_FILES: u64 = 4 << 20;
const LARGE_UNPACKED: u64 = 64 << 20;
/// Of so many selections the files are fetched to explain the steps of one build.
const FETCHED: usize = 8;
/// Longer paths are not shown.
const LONGEST_PATH: usize = 4096;

/// A list, as it was read.
#[derive(Debug, Default)]
pub(super) struct List {
    /// Whether it is one that a newer kiln wrote, and nothing of it was read.
    pub(super) is_newer: bool,
    /// Of the document.
    digest: Option<Digest>,
    /// In the order of the Dockerfile; those that stand in it.
    pub(super) entries: Vec<Arc<Entry>>,
    /// Blobs with the files of selections, by content digest.
    files: BTreeMap<Digest, BlobInfo>,
    /// Of the document that names those.
    files_digest: Option<Digest>,
    fetched: AtomicUsize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    manifests: Vec<Descriptor>,
}

/// As much of it as stays the same.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    artifact_type: String,
}

/// Makes the list of one build's records, with the records in it as far as a registry takes that.
pub(super) fn list(entries: &[Arc<Entry>], files: Option<&Document>) -> Document {
    let mut manifests: Vec<Descriptor> = Vec::new();
    let mut bytes = 0;
    let entries = entries
        .iter()
        .filter_map(|entry| entry.manifest.as_ref())
        .map(|manifest| (manifest, super::record::STEP));
    for (manifest, kind) in entries.chain(files.map(|files| (files, FILES))) {
        if manifests.iter().any(|known| known.digest == manifest.digest) {
            continue;
        }
        bytes += manifest.bytes.len() * 4 / 3;
        manifests.push(Descriptor {
            artifact_type: Some(kind.to_owned()),
            data: (bytes < LARGE_LIST).then(|| STANDARD.encode(&manifest.bytes)),
            ..Descriptor::plain(media::OCI_MANIFEST, manifest.digest, manifest.bytes.len() as u64)
        });
    }
    let index = Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        artifact_type: STEPS.to_owned(),
        manifests,
    };
    Document::new(media::OCI_INDEX, serde_json::to_vec(&index).unwrap_or_default())
}

/// Makes the document that names the files of selections; none of none.
fn files_document(files: &BTreeMap<Digest, BlobInfo>) -> Option<Document> {
    let layer = |(content, blob): (&Digest, &BlobInfo)| Descriptor {
        annotations: [(CONTENT.to_owned(), content.to_string())].into(),
        ..Descriptor::plain(&blob.media_type, blob.digest, blob.size)
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        artifact_type: FILES.to_owned(),
        config: Descriptor::plain(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64),
        layers: files.iter().map(layer).collect(),
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
    (!files.is_empty()).then(|| Document::new(media::OCI_MANIFEST, bytes))
}

/// Reads a list of records: those that are in it, verified. What is wrong with one is passed over; none if it is no list.
pub(super) fn read_list(document: &Document) -> Option<List> {
    let Kind { artifact_type } = serde_json::from_slice(&document.bytes).ok()?;
    if artifact_type != STEPS {
        let is_newer = artifact_type.starts_with(ANY_STEPS);
        return is_newer.then(|| List { is_newer, ..List::default() });
    }
    let index: Index = serde_json::from_slice(&document.bytes).ok()?;
    let mut list = List { digest: Some(document.digest), ..List::default() };
    for descriptor in index.manifests.into_iter().take(MOST_RECORDS) {
        let Descriptor { media_type, artifact_type, digest, size, data, .. } = descriptor;
        let Some(bytes) = data.and_then(|data| STANDARD.decode(data).ok()) else { continue };
        let Ok(document) = Document::verified(&BlobInfo { media_type, digest, size }, bytes) else {
            continue;
        };
        if artifact_type.as_deref() == Some(FILES) {
            list.files = read_files(&document).unwrap_or_default();
            list.files_digest = Some(document.digest);
        } else if let Ok(entry) = Entry::read(document) {
            list.entries.push(Arc::new(entry));
        }
    }
    Some(list)
}

fn read_files(document: &Document) -> Option<BTreeMap<Digest, BlobInfo>> {
    let manifest: Manifest = serde_json::from_slice(&document.bytes).ok()?;
    let file = |blob: Descriptor| {
        let content = blob.annotations.get(CONTENT)?.parse().ok()?;
        let Descriptor { media_type, digest, size, .. } = blob;
        (size <= LARGE_FILES).then_some((content, BlobInfo { media_type, digest, size }))
    };
    Some(manifest.layers.into_iter().take(MOST_FILES).filter_map(file).collect())
}

/// The content digests of what a step took.
fn contents(entry: &Entry) -> impl Iterator<Item = Digest> {
    let parts = entry.facts.parts.iter().flat_map(|parts| &parts.0);
    parts.filter(|part| part.name.starts_with("source ")).filter_map(|part| part.value.parse().ok())
}

impl Exporter {
    /// The list tells the next build in one request what took this one many. The records do not depend on it.
    pub(super) fn write_list(&self, cache: &StepCache<'_>, entries: &[Arc<Entry>]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let known = cache.sources.iter().find(|source| source.place == self.place).unwrap_or(&self.itself);
        let nothing = List::default();
        let known = known.list().unwrap_or(&nothing);
        let mut files = BTreeMap::new();
        let mut new: Vec<Document> = Vec::new();
        for content in entries.iter().flat_map(|entry| contents(entry)) {
            if files.len() == MOST_FILES || files.contains_key(&content) {
                continue;
            }
            // Who hits all has no notes of the files: what is there stays.
            if let Some(blob) = known.files.get(&content) {
                files.insert(content, blob.clone());
            } else if let Some(note) = cache.store.packed_note(NoteKind::Files, &content.hex())?
                && note.len() as u64 <= LARGE_FILES
            {
                let note = Document::new(FILES_OF, note);
                files.insert(content, note.info());
                new.push(note);
            }
        }
        let document = files_document(&files);
        let list = list(entries, document.as_ref());
        match &self.place {
            Place::Directory(dir) => write_list(dir, &list, &new.iter().collect::<Vec<_>>()),
            Place::Registry(_) if known.digest == Some(list.digest) => Ok(()),
            Place::Registry(name) => {
                if let Some(document) =
                    document.filter(|document| known.files_digest != Some(document.digest))
                {
                    self.push_files(cache, name, &document, &new)?;
                }
                cache.registry.push_manifest(name, &list)?;
                Ok(())
            }
        }
    }

    fn push_files(
        &self,
        cache: &StepCache<'_>,
        name: &ImageRef,
        document: &Document,
        new: &[Document],
    ) -> Result<(), Error> {
        let blobs = Blobs::new(cache.store, cache.registry, &Unseen, cache.cancel);
        let empty = Document::new(EMPTY_TYPE, EMPTY.to_vec());
        let source = Documents::over(new.iter().chain([&empty]), &blobs);
        let infos: Vec<BlobInfo> = new.iter().chain([&empty]).map(Document::info).collect();
        let push = Push {
            store: cache.store,
            registry: cache.registry,
            task: &Unseen,
            cancel: cache.cancel,
            documents: &[document],
            blobs: &infos,
            source: &source,
            from: &|_| None,
            sent: &|_, blob| *blob == empty.digest,
        };
        push.to(&[ImageRef { tag: None, digest: None, ..name.clone() }]).map(drop)
    }
}

impl StepCache<'_> {
    /// Returns the builds that wrote last to the sources, as far as their lists were read.
    pub(crate) fn builds_elsewhere(&self, redactor: &Redactor) -> Vec<BuildElsewhere> {
        let build = |(number, source): (usize, &super::source::Source)| {
            let list = source.list().filter(|list| !list.entries.is_empty())?;
            let steps = list.entries.iter().filter_map(|entry| {
                let facts = &entry.facts;
                let (line, parts) = (facts.line.as_ref()?, facts.parts.as_ref()?);
                let (key, title, created) = (facts.key, facts.title.as_str(), facts.created);
                Some(StepElsewhere { key, title, created, line, parts })
            });
            Some(BuildElsewhere::of((number, &source.label), steps, redactor))
        };
        self.sources.iter().enumerate().filter_map(build).collect()
    }

    /// Fetches the files of a selection, a few times in a build. What is wrong makes an explanation shorter, no more.
    pub(crate) fn files_elsewhere(&self, source: usize, content: &Digest) -> Option<Facts> {
        let source = self.sources.get(source).filter(|source| !source.is_down())?;
        let list = source.list()?;
        let blob = list.files.get(content)?;
        if list.fetched.fetch_add(1, Ordering::Relaxed) >= FETCHED {
            return None;
        }
        let mut packed = Vec::new();
        match source.origin()? {
            Origin::Registry(name) => {
                self.registry.blob(name, blob, None).ok()?.take(LARGE_FILES).read_to_end(&mut packed).ok()?;
            }
            Origin::Layout(layout) => {
                layout.blob(blob).ok()?.take(LARGE_FILES).read_to_end(&mut packed).ok()?;
            }
            Origin::Store => return None,
        }
        let facts = Facts::from_bytes(&unpack_note(&packed, LARGE_UNPACKED)?)?;
        let fine = facts.iter().all(|fact| fact.path.as_os_str().len() <= LONGEST_PATH);
        fine.then_some(facts)
    }
}
