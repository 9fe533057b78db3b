//! Pushing: what one asks of a [`RegistryClient`]. Mirrors are never pushed to.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>

mod body;
mod feed;
mod upload;

use std::sync::mpsc;

use kiln_core::{Digest, ImageRef};
use kiln_oci::{BlobInfo, BlobSource, Document};
use reqwest::Method;
use tokio::task::AbortHandle;

use crate::endpoint::Endpoint;
use crate::engine::stopped;
use crate::session::{Ask, Session};
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
        let (session, image, digest) = (self.session.clone(), image.clone(), *digest);
        self.run(async move { has(&session, &session.registry(&image).await?, &digest).await })
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
                Ok(Message::Ended(result)) => return result,
                Err(_) => return Err(stopped(&self.cancel)),
            }
        }
    }

    /// Puts a manifest or index under its digest, and under the tag if `image` has one. If the tag stands for it already
    /// that one HEAD is all.
    ///
    /// # Errors
    /// No access, no answer, or the registry does not take it: what it points to must be there before.
    pub fn push_manifest(&self, image: &ImageRef, document: &Document) -> Result<Pushed, RegistryError> {
        let digest = document.digest;
        if let Some(pinned) = image.digest.filter(|pinned| *pinned != digest) {
            let reason = format!("it is to be {pinned} in {}", image.name());
            return Err(RegistryError::Source { digest, reason });
        }
        let (session, image) = (self.session.clone(), image.clone());
        let reference = image.tag.clone().unwrap_or_else(|| digest.to_string());
        let document = document.clone();
        self.run(async move { put(&session, &session.registry(&image).await?, &reference, document).await })
    }
}

async fn put(
    session: &Session,
    endpoint: &Endpoint,
    reference: &str,
    document: Document,
) -> Result<Pushed, RegistryError> {
    let digest = document.digest;
    let said = |answer: &reqwest::Response| -> Option<Digest> {
        answer.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
    };
    let head = Ask::push(Method::HEAD, "manifests", reference);
    match session.send(endpoint, &head).await {
        Ok(answer) if said(&answer) == Some(digest) => return Ok(Pushed::There),
        // Not every registry lets one look where one may write.
        Ok(_) | Err(RegistryError::NotFound { .. } | RegistryError::PushDenied { .. }) => {}
        Err(error) => return Err(error),
    }
    let bytes = document.bytes.len() as u64;
    let media_type = media_type(&document);
    let put = Ask {
        body: Some((media_type, document.bytes.into())),
        ..Ask::push(Method::PUT, "manifests", reference)
    };
    let answer = session.send(endpoint, &put).await?;
    match said(&answer) {
        Some(actual) if actual != digest => {
            Err(RegistryError::DigestMismatch { host: endpoint.host.clone(), wanted: digest, actual })
        }
        _ => Ok(Pushed::Uploaded { bytes }),
    }
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
