//! The client: blocking, from any thread.

use std::sync::{Arc, OnceLock};

use kiln_core::{Cancel, Digest, ImageRef, Platform};
use kiln_oci::{BlobInfo, Document, LoadedImage, OciError, load};
use reqwest::Method;

use crate::blob::{self, BlobReader, Resume};
use crate::endpoint;
use crate::engine::Engine;
use crate::session::{Ask, Session, Wanted};
use crate::{RegistryConfig, RegistryError};

/// Pulls from registries and pushes to them. Cheap to make: no thread, no TLS and no file before the first request that needs it.
///
/// Several threads may use one client; they share connections and tokens. Every call ends soon after the [`Cancel`]
/// given is cancelled, with [`RegistryError::Cancelled`].
#[derive(Debug)]
pub struct RegistryClient {
    pub(crate) session: Arc<Session>,
    engine: OnceLock<Result<Arc<Engine>, RegistryError>>,
    pub(crate) cancel: Cancel,
}

impl RegistryClient {
    /// Makes a client.
    ///
    /// # Errors
    /// [`RegistryError::Mirror`].
    pub fn new(config: RegistryConfig, cancel: Cancel) -> Result<Self, RegistryError> {
        endpoint::check(&config)?;
        Ok(Self { session: Arc::new(Session::new(config)), engine: OnceLock::new(), cancel })
    }

    /// Finds the image that a name means on a platform. A tag costs one HEAD request; the documents (index, manifest,
    /// configuration) are taken from `cached` by digest where it has them, and fetched otherwise. A name with a digest
    /// whose documents are all cached costs nothing. All is verified, cached bytes too.
    ///
    /// # Errors
    /// It cannot be had, or is no image that kiln can use.
    pub fn resolve(
        &self,
        image: &ImageRef,
        platform: &Platform,
        cached: &dyn Fn(&Digest) -> Option<Vec<u8>>,
    ) -> Result<LoadedImage, RegistryError> {
        let known = |digest: &Digest| cached(digest).filter(|bytes| Digest::of(bytes) == *digest);
        let root = match image.digest {
            Some(digest) => Root::Digest(digest),
            None => self.root(image)?,
        };
        let root = match root {
            Root::Document(document) => document,
            Root::Digest(digest) => match known(&digest) {
                Some(bytes) => Document::new("", bytes),
                None => self.manifest(image, digest)?,
            },
        };
        let pinned = ImageRef { digest: Some(root.digest), ..image.clone() };
        let loaded = load(root, platform, &mut |info: &BlobInfo| match known(&info.digest) {
            Some(bytes) => Ok(bytes),
            None => self.part(image, info).map_err(Failure::Registry),
        });
        loaded.map_err(|failure| match failure {
            Failure::Registry(error) => error,
            Failure::Oci(error) => RegistryError::Image { image: pinned.familiar(), error },
        })
    }

    /// Asks what a name points to now: one HEAD request, none for a name with a digest.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn resolve_digest(&self, image: &ImageRef) -> Result<Digest, RegistryError> {
        if let Some(digest) = image.digest {
            return Ok(digest);
        }
        Ok(match self.root(image)? {
            Root::Digest(digest) => digest,
            Root::Document(document) => document.digest,
        })
    }

    /// Fetches a manifest or index by its digest, from where `image` is.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn manifest(&self, image: &ImageRef, digest: Digest) -> Result<Document, RegistryError> {
        self.document(image, Ask::get("manifests", digest), Some(digest))
    }

    /// Opens a blob of `image`, once a server delivers it. The stream goes on by itself over broken connections and other
    /// mirrors; it is verified at its end. With `resume` it starts in the middle.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn blob(
        &self,
        image: &ImageRef,
        info: &BlobInfo,
        resume: Option<Resume>,
    ) -> Result<BlobReader, RegistryError> {
        let engine = self.engine()?;
        blob::open(engine, &self.session, &self.cancel, image, info, resume)
    }

    /// The manifest or configuration that a descriptor describes.
    fn part(&self, image: &ImageRef, info: &BlobInfo) -> Result<Vec<u8>, RegistryError> {
        use kiln_oci::media::{is_index, is_manifest};
        let manifest = is_manifest(&info.media_type) || is_index(&info.media_type);
        let ask = Ask::get(if manifest { "manifests" } else { "blobs" }, info.digest);
        Ok(self.document(image, ask, Some(info.digest))?.bytes)
    }

    fn root(&self, image: &ImageRef) -> Result<Root, RegistryError> {
        let tag = image.tag.clone().unwrap_or_else(|| "latest".to_owned());
        let session = self.session.clone();
        let image = image.clone();
        self.run(async move {
            let (session, tag) = (&session, &tag);
            session
                .first(&image, Wanted::Tag, tag, |endpoint| async move {
                    let head = Ask { method: Method::HEAD, ..Ask::get("manifests", tag) };
                    let answer = session.send(&endpoint, &head).await?;
                    let digest = answer.headers().get("docker-content-digest");
                    match digest.and_then(|digest| digest.to_str().ok()?.parse().ok()) {
                        Some(digest) => Ok(Root::Digest(digest)),
                        // The header is only recommended; without it the bytes tell.
                        None => {
                            let get = Ask::get("manifests", tag);
                            Ok(Root::Document(session.document(&endpoint, &get, None).await?))
                        }
                    }
                })
                .await
        })
    }

    fn document(
        &self,
        image: &ImageRef,
        ask: Ask,
        digest: Option<Digest>,
    ) -> Result<Document, RegistryError> {
        let session = self.session.clone();
        let image = image.clone();
        self.run(async move {
            let (session, ask) = (&session, &ask);
            let fetch = |endpoint| async move { session.document(&endpoint, ask, digest).await };
            session.first(&image, Wanted::Document, &ask.what, fetch).await
        })
    }

    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.engine()?.run(&self.cancel, work)
    }

    pub(crate) fn engine(&self) -> Result<&Arc<Engine>, RegistryError> {
        self.engine.get_or_init(|| Engine::start().map(Arc::new)).as_ref().map_err(Clone::clone)
    }
}

/// What a tag points to, with its bytes if they had to be fetched to know.
enum Root {
    Digest(Digest),
    Document(Document),
}

enum Failure {
    Registry(RegistryError),
    Oci(OciError),
}

impl From<OciError> for Failure {
    fn from(error: OciError) -> Self {
        Self::Oci(error)
    }
}
