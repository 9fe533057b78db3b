//! Manifests about other manifests, on registries that keep no list of them: a tag stands for an index of those.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests-with-subject>

use kiln_core::Digest;
use kiln_oci::{Document, media};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::endpoint::Endpoint;
use crate::session::{Ask, Session};
use crate::{RegistryError, referrers, retry};

/// How often the list is written when others write it at the same time.
const ROUNDS: u32 = 10;

/// What a manifest is about, and how the list names it.
pub(super) struct Subject {
    subject: Digest,
    descriptor: Value,
}

impl Subject {
    /// None if it is about nothing.
    pub(super) fn of(document: &Document) -> Option<Self> {
        let value: Value = serde_json::from_slice(&document.bytes).ok()?;
        let subject = value.get("subject")?.get("digest")?.as_str()?.parse().ok()?;
        let text = |value: &Value| Some(value.as_str()?.to_owned()).filter(|text| !text.is_empty());
        let artifact_type = value.get("artifactType").and_then(text);
        let artifact_type = artifact_type.or_else(|| text(value.get("config")?.get("mediaType")?));
        let mut descriptor = Map::new();
        descriptor.insert("mediaType".to_owned(), super::media_type(document).into());
        descriptor.insert("digest".to_owned(), document.digest.to_string().into());
        descriptor.insert("size".to_owned(), document.bytes.len().into());
        let optional = [
            ("artifactType", artifact_type.map(Value::from)),
            ("annotations", value.get("annotations").cloned()),
        ];
        for (name, value) in optional {
            value.map(|value| descriptor.insert(name.to_owned(), value));
        }
        Some(Self { subject, descriptor: descriptor.into() })
    }

    /// Adds it to the list. The protocol has no way to do so in one step: whoever does not find himself there afterwards was
    /// overwritten, and does it again. Threads of one client wait for each other; two clients that write at the same
    /// moment may still lose one entry, as with every client of such a registry.
    pub(super) async fn refer(&self, session: &Session, endpoint: &Endpoint) -> Result<(), RegistryError> {
        let tag = referrers::fallback_tag(&self.subject);
        let _one_at_a_time = session.referring.lock().await;
        let first = session.config.timeouts.again;
        for round in 0..ROUNDS {
            let get = Ask { method: Method::GET, ..Ask::push(Method::GET, "manifests", &tag) };
            let mut index = match session.document(endpoint, &get, None).await {
                Ok(document) => serde_json::from_slice(&document.bytes).unwrap_or_else(|_| empty()),
                Err(RegistryError::NotFound { .. }) => empty(),
                Err(error) => return Err(error),
            };
            let digest = self.descriptor.get("digest");
            let wrong = || RegistryError::Protocol {
                host: endpoint.host.clone(),
                reason: format!("{}:{tag} is no list of manifests", endpoint.repository),
            };
            let manifests = index.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(wrong)?;
            if manifests.iter().any(|manifest| manifest.get("digest") == digest) {
                return Ok(());
            }
            manifests.push(self.descriptor.clone());
            tokio::time::sleep(retry::wait(first, round)).await;
            let body = Some((media::OCI_INDEX.to_owned(), index.to_string().into_bytes().into()));
            session.send(endpoint, &Ask { body, ..Ask::push(Method::PUT, "manifests", &tag) }).await?;
        }
        Err(RegistryError::Protocol {
            host: endpoint.host.clone(),
            reason: format!("others keep overwriting {}:{tag}", endpoint.repository),
        })
    }
}

fn empty() -> Value {
    json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [] })
}
