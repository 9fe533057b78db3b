//! Documents that a tag names, whatever they are: records of a cache are no images.

use kiln_core::ImageRef;
use kiln_oci::Document;

use crate::session::Ask;
use crate::{RegistryClient, RegistryError};

impl RegistryClient {
    /// Returns the manifest or index under the name's tag; none if there is none. One request, to the registry itself: what a
    /// mirror remembers of a tag may be old.
    ///
    /// # Errors
    /// There is no answer, or no access.
    pub fn tagged(&self, image: &ImageRef) -> Result<Option<Document>, RegistryError> {
        let (session, name) = (self.session.clone(), image.clone());
        let tag = image.tag.clone().unwrap_or_else(|| "latest".to_owned());
        let ask = Ask::get("manifests", &tag);
        let got = self.run(async move {
            let endpoint = session.registry(&name).await?;
            match session.document(&endpoint, &ask, None).await {
                Ok(document) => Ok(Some(document)),
                Err(RegistryError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        got.map_err(|error| error.of_what(&image.name(), &tag))
    }
}
