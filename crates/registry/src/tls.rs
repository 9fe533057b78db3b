//! Trust, looked up when the first certificate is to be checked.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::RegistryError;
use crate::endpoint::Trust;
use crate::response::plain;

/// Returns a configuration that reads the system's roots only once a server shows a certificate: parsing them takes
/// milliseconds, which a build against a plain-http mirror need not pay. `SSL_CERT_FILE` and `SSL_CERT_DIR` count.
///
/// # Errors
/// A client certificate cannot be used.
pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let fail = |error: Error| RegistryError::Client { cause: error.to_string() };
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(fail)?;
    let verifier = LazyRoots { provider, trust: trust.clone(), known: OnceLock::new() };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match trust.client.as_slice() {
        [] => builder.with_no_client_auth(),
        [(certificate, key)] => {
            let chain = certificates(certificate)?;
            let wrong = |reason: String| RegistryError::Configuration { file: key.clone(), reason };
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| wrong(format!("there is no key in it: {}", plain(&error.to_string()))))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| wrong(format!("it does not fit {}: {error}", certificate.display())))?
        }
        [_, (second, _), ..] => {
            let reason = "it is the second client certificate for one host, and kiln shows one".to_owned();
            return Err(RegistryError::Configuration { file: second.clone(), reason });
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads the certificates of a file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let wrong = |reason: String| RegistryError::Configuration { file: path.to_owned(), reason };
    let read = |error: rustls::pki_types::pem::Error| wrong(plain(&error.to_string()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(read)?.collect();
    let found = found.map_err(read)?;
    if found.is_empty() { Err(wrong("there is no certificate in it".to_owned())) } else { Ok(found) }
}

/// rustls' own verifier, made late.
#[derive(Debug)]
struct LazyRoots {
    provider: Arc<CryptoProvider>,
    trust: Trust,
    known: OnceLock<Result<Known, Error>>,
}

/// Whom one believes.
#[derive(Debug, Clone)]
struct Known {
    verifier: Arc<WebPkiServerVerifier>,
    /// Certificates that were given for this host.
    given: Vec<CertificateDer<'static>>,
}

impl LazyRoots {
    fn load(&self) -> Result<Known, Error> {
        let mut given = Vec::new();
        for file in &self.trust.ca {
            given.extend(certificates(file).map_err(|error| Error::General(error.to_string()))?);
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots.add_parsable_certificates(given.iter().cloned());
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(Error::General(format!(
                "this machine has no certificate authorities to trust; install ca-certificates or set SSL_CERT_FILE{why}"
            )));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Known { verifier, given })
    }
}

impl ServerCertVerifier for LazyRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trust.unverified {
            return Ok(ServerCertVerified::assertion());
        }
        let known = self.known.get_or_init(|| self.load()).as_ref().map_err(Clone::clone)?;
        // A server that signed for itself, as many in a local network, is believed if it was given by hand. webpki takes no
        // authority as a server: <https://github.com/rustls/webpki/issues/114>.
        if known.given.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        known.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
