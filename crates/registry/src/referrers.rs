//! What is about a manifest: signatures, attestations, lists of its packages.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>

use std::collections::BTreeMap;

use kiln_core::{Digest, ImageRef};
use kiln_oci::{BlobInfo, MAX_DOCUMENT};
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::session::{Ask, Session, Wanted};
use crate::{RegistryClient, RegistryError, response};

/// Pages of one list that are read.
const MOST_PAGES: usize = 100;

/// A manifest whose `subject` is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// The manifest.
    pub info: BlobInfo,
    /// What it is, as a media type; empty if it does not say.
    pub artifact_type: String,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl RegistryClient {
    /// Lists the manifests about a manifest in the repository of `image`, those of one type if one is given. A registry
    /// that keeps no list has it under a tag; one that has neither has none.
    ///
    /// # Errors
    /// There is no answer, no access, or one that is no list.
    pub fn referrers(
        &self,
        image: &ImageRef,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let (session, digest, image) = (self.session.clone(), *digest, image.clone());
        let found = self.run(async move {
            let session = &session;
            session
                .first(&image, Wanted::Document, &digest, |endpoint| async move {
                    list(session, &endpoint, &digest).await
                })
                .await
        });
        let mut found = match found {
            Err(error) if matches!(error.root(), RegistryError::NotFound { .. }) => Vec::new(),
            found => found?,
        };
        found.retain(|referrer| artifact_type.is_none_or(|wanted| wanted == referrer.artifact_type));
        Ok(found)
    }
}

/// The tag for whatever is about a manifest.
pub(crate) fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

async fn list(
    session: &Session,
    endpoint: &Endpoint,
    digest: &Digest,
) -> Result<Vec<Referrer>, RegistryError> {
    let host = &endpoint.host;
    let mut found = Vec::new();
    let mut next = Some(endpoint.url("referrers", &digest.to_string()));
    for page in 0..MOST_PAGES {
        let Some(url) = next.take() else { break };
        let ask = Ask { url: Some(url), ..Ask::get("referrers", digest) };
        let answer = match session.send(endpoint, &ask).await {
            Ok(answer) => answer,
            // There is no such thing there, said in one of many ways.
            Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) if page == 0 => {
                return tagged(session, endpoint, digest).await;
            }
            Err(error) => return Err(error),
        };
        let link = answer.headers().get("link").and_then(|link| link.to_str().ok());
        next = link.and_then(following).and_then(|link| answer.url().join(link).ok());
        next = next.filter(|url| url.origin() == endpoint.base.origin());
        let what = format!("the referrers of {digest}");
        let stall = session.config.timeouts.stall;
        let bytes = response::body(host, stall, &what, MAX_DOCUMENT, answer).await?;
        match serde_json::from_slice::<Index>(&bytes) {
            Ok(index) => found.extend(index.manifests.into_iter().map(Referrer::from)),
            // Some answer every unknown path with a page for people.
            Err(_) if page == 0 => return tagged(session, endpoint, digest).await,
            Err(error) => {
                let reason = format!("page {} of {what} is none: {error}", page + 1);
                return Err(RegistryError::Protocol { host: host.clone(), reason });
            }
        }
    }
    Ok(found)
}

async fn tagged(
    session: &Session,
    endpoint: &Endpoint,
    digest: &Digest,
) -> Result<Vec<Referrer>, RegistryError> {
    let tag = fallback_tag(digest);
    let document = session.document(endpoint, &Ask::get("manifests", &tag), None).await?;
    let index =
        serde_json::from_slice::<Index>(&document.bytes).map_err(|error| RegistryError::Protocol {
            host: endpoint.host.clone(),
            reason: format!("{}:{tag} is no list of manifests: {error}", endpoint.repository),
        })?;
    Ok(index.manifests.into_iter().map(Referrer::from).collect())
}

/// Returns where a list goes on: `</v2/a/referrers/sha256:..?n=2>; rel="next"`.
pub(crate) fn following(link: &str) -> Option<&str> {
    link.split(',').find_map(|link| {
        let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = |part: &str| matches!(part.trim(), "rel=\"next\"" | "rel=next");
        rest.split(';').any(next).then_some(address)
    })
}

impl From<Entry> for Referrer {
    fn from(entry: Entry) -> Self {
        let Entry { media_type, digest, size, artifact_type, annotations } = entry;
        Self {
            info: BlobInfo { media_type, digest, size },
            artifact_type: artifact_type.unwrap_or_default(),
            annotations: annotations.unwrap_or_default(),
        }
    }
}
