//! Which tags a repository has, and taking a manifest away.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags>,
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#deleting-manifests>

use kiln_core::{Digest, ImageRef};
use kiln_oci::MAX_DOCUMENT;
use reqwest::Method;
use serde::Deserialize;

use crate::referrers::following;
use crate::session::Ask;
use crate::{RegistryClient, RegistryError, response};

/// A registry that pages for ever is not followed for ever.
const MOST_PAGES: usize = 1000;

#[derive(Deserialize)]
struct Tags {
    /// Some answer null for none.
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// Lists the tags of a repository, as its registry itself has them and not a mirror. A repository that is not there
    /// has none.
    ///
    /// # Errors
    /// There is no answer, no access, or the registry lists none.
    pub fn tags(&self, image: &ImageRef) -> Result<Vec<String>, RegistryError> {
        let (session, name) = (self.session.clone(), image.clone());
        let found = self.run(async move {
            let endpoint = session.registry(&name).await?;
            let mut found = Vec::new();
            let mut next = Some(endpoint.url("tags", "list"));
            for _ in 0..MOST_PAGES {
                let Some(url) = next.take() else { break };
                let ask = Ask { url: Some(url), ..Ask::get("tags", "list") };
                let answer = session.send(&endpoint, &ask).await?;
                let link = answer.headers().get("link").and_then(|link| link.to_str().ok());
                next = link.and_then(following).and_then(|link| answer.url().join(link).ok());
                next = next.filter(|url| url.origin() == endpoint.base.origin());
                let (host, stall) = (&endpoint.host, session.config.timeouts.stall);
                let bytes = response::body(host, stall, "the list of tags", MAX_DOCUMENT, answer).await?;
                let page: Tags = serde_json::from_slice(&bytes).map_err(|error| RegistryError::Protocol {
                    host: host.clone(),
                    reason: format!("its list of tags is none: {error}"),
                })?;
                found.extend(page.tags.unwrap_or_default());
            }
            Ok(found)
        });
        match found {
            Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
            found => found.map_err(|error| error.of_what(&image.name(), &"tags")),
        }
    }

    /// Takes a manifest away, with all its tags. One that is not there is gone.
    ///
    /// # Errors
    /// The registry does not do that, or not for this user.
    pub fn delete_manifest(&self, image: &ImageRef, digest: &Digest) -> Result<(), RegistryError> {
        let (session, name, wanted) = (self.session.clone(), image.clone(), *digest);
        let gone = self.run(async move {
            let endpoint = session.registry(&name).await?;
            session.send(&endpoint, &Ask::push(Method::DELETE, "manifests", wanted)).await.map(drop)
        });
        match gone {
            Err(RegistryError::NotFound { .. }) => Ok(()),
            gone => gone.map_err(|error| error.of_what(&image.name(), digest)),
        }
    }
}
