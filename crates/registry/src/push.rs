//! Pushing: what one asks of a [`RegistryClient`]. Mirrors are never pushed to.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>

mod feed;
mod subject;
mod upload;

use std::sync::mpsc;

use kiln_core::{Digest, ImageRef};
use kiln_oci::{BlobInfo, BlobSource, Document};
use reqwest::Method;
use tokio::task::AbortHandle;

use crate::endpoint::Endpoint;
use crate::engine::stopped;
use crate::session::{Ask, Session, lock};
use crate::{RegistryClient, RegistryError};
use feed::Feeder;
use upload::Upload;

/// How something came to be in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    There,
    /// The registry took it from another of its repositories.
    Mounted {
        /// Which.
        from: String,
    },
    /// It was sent.
    Uploaded {
        /// Its size, bytes.
        bytes: u64,
    },
}

/// What the sending half wants of the thread that pushes.
enum Message {
    Feed(feed::Wanted),
    Ended(Result<Pushed, RegistryError>),
}

impl RegistryClient {
    /// Whether the repository has a blob: one HEAD. The registry itself is asked, with what one needs for a push.
    ///
    /// # Errors
    /// There is no answer, or no access.
    pub fn has_blob(&self, image: &ImageRef, digest: &Digest) -> Result<bool, RegistryError> {
        let (session, name, wanted) = (self.session.clone(), image.clone(), *digest);
        let has = self.run(async move { has(&session, &session.registry(&name).await?, &wanted).await });
        has.map_err(|error| error.of_what(&image.name(), digest))
    }

    /// Whether the name's tag, or its digest if it has no tag, stands for this manifest: one HEAD, to the registry itself.
    /// Then all that the manifest points to is there, too. A push of it that follows does not look again. One with a
    /// `subject` is never there, unasked: there is more to its push.
    ///
    /// # Errors
    /// There is no answer.
    pub fn has_manifest(&self, image: &ImageRef, document: &Document) -> Result<bool, RegistryError> {
        let digest = &document.digest;
        if subject::Subject::of(document).is_some() || image.digest.is_some_and(|pinned| pinned != *digest) {
            return Ok(false);
        }
        let (session, name) = (self.session.clone(), image.clone());
        let (wanted, reference) = (*digest, reference(image, digest));
        let has = self.run(async move {
            let endpoint = session.registry(&name).await?;
            let has = stands_for(&session, &endpoint, &reference, wanted).await?;
            if !has {
                lock(&session.absent).insert((endpoint.repository, reference, wanted));
            }
            Ok(has)
        });
        has.map_err(|error| error.of_what(&image.name(), digest))
    }

    /// Makes a blob present in the repository of `image`: if it is not there, the registry takes it from one of `mounts`
    /// (names of other registries are passed over), else it is read from `source` and sent. Broken connections are gone on
    /// with. `progress` is told how many bytes were handed over so far, on the calling thread; after a break it may be less.
    ///
    /// Several threads may push at once. Memory is a few pieces of 256 KiB, whatever the blob's size.
    ///
    /// # Errors
    /// No access, no answer, or [`RegistryError::Source`].
    pub fn push_blob(
        &self,
        image: &ImageRef,
        blob: &BlobInfo,
        source: &dyn BlobSource,
        mounts: &[ImageRef],
        progress: &dyn Fn(u64),
    ) -> Result<Pushed, RegistryError> {
        let (session, name) = (self.session.clone(), image.clone());
        let endpoint = self.run(async move { session.registry(&name).await })?;
        if self.cancel.is_cancelled() {
            return Err(RegistryError::Cancelled);
        }
        let mounts = mounts
            .iter()
            .filter(|other| other.registry == image.registry && other.repository != image.repository)
            .map(|other| other.repository.clone())
            .collect();
        let (sender, messages) = mpsc::channel();
        let session = self.session.clone();
        let upload = Upload { session, endpoint, info: blob.clone(), mounts, caller: sender.clone() };
        let abort = self.engine()?.spawn(async move {
            let result = upload.run().await;
            // The receiver waits below, unless its thread is gone.
            let _ = sender.send(Message::Ended(result));
        });
        let _ended = Ended(abort.clone());
        let _guard = self.cancel.on_cancel(move || abort.abort());
        let mut feeder = Feeder::new(source, blob, progress);
        loop {
            match messages.recv() {
                Ok(Message::Feed(wanted)) => feeder.feed(&wanted)?,
                Ok(Message::Ended(result)) => {
                    return result.map_err(|error| error.of_what(&image.name(), &blob.digest));
                }
                Err(_) => return Err(stopped(&self.cancel)),
            }
        }
    }

    /// Puts a manifest or index under its digest, and under the tag if `image` has one. If the tag stands for it already
    /// that one HEAD is all. One with a `subject` is made known to whoever asks for that one's referrers, by a tag of its own
    /// where the registry does not do it.
    ///
    /// # Errors
    /// No access, no answer, or the registry does not take it: what it points to must be there before.
    pub fn push_manifest(&self, image: &ImageRef, document: &Document) -> Result<Pushed, RegistryError> {
        let digest = document.digest;
        if let Some(pinned) = image.digest.filter(|pinned| *pinned != digest) {
            let reason = format!("it is to be {pinned} in {}", image.name());
            return Err(RegistryError::Source { digest, reason });
        }
        let (session, name) = (self.session.clone(), image.clone());
        let (reference, document) = (reference(image, &digest), document.clone());
        let pushed = self
            .run(async move { put(&session, &session.registry(&name).await?, &reference, document).await });
        pushed.map_err(|error| error.of_what(&image.name(), &digest))
    }
}

fn reference(image: &ImageRef, digest: &Digest) -> String {
    image.tag.clone().unwrap_or_else(|| digest.to_string())
}

async fn put(
    session: &Session,
    endpoint: &Endpoint,
    reference: &str,
    document: Document,
) -> Result<Pushed, RegistryError> {
    let digest = document.digest;
    let subject = subject::Subject::of(&document);
    // With a subject there is more to do than to be there, and whoever was ended in between has not done it.
    let looked = lock(&session.absent).remove(&(endpoint.repository.clone(), reference.to_owned(), digest));
    if subject.is_none() && !looked && stands_for(session, endpoint, reference, digest).await? {
        return Ok(Pushed::There);
    }
    let bytes = document.bytes.len() as u64;
    let put = Ask {
        body: Some((media_type(&document), document.bytes.into())),
        ..Ask::push(Method::PUT, "manifests", reference)
    };
    let answer = session.send(endpoint, &put).await?;
    if let Some(actual) = digest_of(&answer).filter(|actual| *actual != digest) {
        let host = endpoint.host.clone();
        return Err(RegistryError::DigestMismatch { host, wanted: digest, actual });
    }
    match subject {
        Some(subject) if !answer.headers().contains_key("oci-subject") => {
            subject.refer(session, endpoint).await?;
        }
        _ => {}
    }
    Ok(Pushed::Uploaded { bytes })
}

/// Whether a tag or digest is this manifest's.
async fn stands_for(
    session: &Session,
    endpoint: &Endpoint,
    reference: &str,
    digest: Digest,
) -> Result<bool, RegistryError> {
    match session.send(endpoint, &Ask::push(Method::HEAD, "manifests", reference)).await {
        Ok(answer) => Ok(digest_of(&answer) == Some(digest)),
        // Not every registry lets one look where one may write.
        Err(RegistryError::NotFound { .. } | RegistryError::PushDenied { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn digest_of(answer: &reqwest::Response) -> Option<Digest> {
    answer.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// What a document says that it is, or what is said of it where it says nothing (OCI's need not).
fn media_type(document: &Document) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let said = serde_json::from_slice::<Said>(&document.bytes).ok().and_then(|said| said.media_type);
    said.unwrap_or_else(|| document.media_type.clone())
}

async fn has(session: &Session, endpoint: &Endpoint, digest: &Digest) -> Result<bool, RegistryError> {
    match session.send(endpoint, &Ask::push(Method::HEAD, "blobs", digest)).await {
        Ok(_) => Ok(true),
        Err(RegistryError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends an upload that nobody waits for any more.
struct Ended(AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}
