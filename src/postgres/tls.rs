//! What `sslmode` means, as a TLS configuration; and the channel binding of SCRAM.
//!
//! The modes follow libpq (PostgreSQL docs, "SSL Support"): `prefer` and `require` encrypt without
//! looking at the certificate, unless root certificates are configured, which makes `require` mean
//! `verify-ca`. The cryptography is ring's, named explicitly: with two providers in the program
//! rustls would refuse to guess.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::settings::{PostgresSettings, SslMode};

use super::PostgresError;

/// A TLS configuration and what it proves about the server.
pub(super) struct TlsPolicy {
    pub(super) config: Arc<ClientConfig>,
    /// Whether the server's certificate is checked, so that a secret may be sent to it.
    pub(super) verified: bool,
}

/// The policy of the settings; `None` when TLS is not to be used.
pub(super) fn policy(settings: &PostgresSettings) -> Result<Option<TlsPolicy>, PostgresError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let root_cert = settings.ssl_root_cert.as_deref();
    let checks_name = match settings.ssl_mode {
        SslMode::Disable => return Ok(None),
        SslMode::Prefer => None,
        SslMode::Require => root_cert.map(|_| false),
        SslMode::VerifyCa => Some(false),
        SslMode::VerifyFull => Some(true),
    };
    let verifier: Arc<dyn ServerCertVerifier> = match checks_name {
        None => Arc::new(Unchecked { algorithms: provider.signature_verification_algorithms }),
        Some(checks_name) => Arc::new(Checked::new(root_cert, checks_name, &provider)?),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PostgresError::Protocol(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Some(TlsPolicy { config: Arc::new(config), verified: checks_name.is_some() }))
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, PostgresError> {
    let unusable =
        |reason: String| PostgresError::RootCertificates { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, PostgresError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reason = found.errors.first().map_or("none found".to_owned(), ToString::to_string);
        return Err(PostgresError::RootCertificates { path: "the system's store".into(), reason });
    }
    Ok(found.certs)
}

/// Checks the chain of the certificate, and its name if asked to.
#[derive(Debug)]
struct Checked {
    chain: Arc<WebPkiServerVerifier>,
    /// Certificates of the configured file. A server's own self-signed certificate may stand there:
    /// `openssl req -x509` marks it as an authority, which a chain check refuses at a server.
    pinned: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Checked {
    fn new(
        root_cert: Option<&Path>,
        checks_name: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, PostgresError> {
        let (certificates, pinned) = match root_cert {
            Some(path) => {
                let certificates = read_pem(path)?;
                (certificates.clone(), certificates)
            }
            None => (system_roots()?, Vec::new()),
        };
        let unusable = |reason: String| PostgresError::RootCertificates {
            path: root_cert.unwrap_or(Path::new("the system's store")).to_owned(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(unusable("none of its certificates can be read".to_owned()));
        }
        let chain = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider))
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { chain, pinned, checks_name })
    }
}

/// Whether the chain check failed only because the certificate stands for itself; its dates and
/// signatures have then been found in order.
fn is_self_standing(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))
    )
}

fn is_wrong_name(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match checked {
            Err(error) if is_self_standing(&error) && self.pinned.contains(end_entity) => {
                if self.checks_name {
                    let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&parsed, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            // The chain is checked before the name, so a wrong name means a good chain.
            Err(error) if is_wrong_name(&error) && !self.checks_name => {
                Ok(ServerCertVerified::assertion())
            }
            Ok(_) | Err(_) => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Takes any certificate, as `prefer` and `require` do: protects against listening only.
#[derive(Debug)]
struct Unchecked {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Contents of the object identifiers of signature algorithms, and the hash that RFC 5929 takes for
/// each: the signature's own, and SHA-256 in place of MD5 and SHA-1. For any other algorithm (as
/// Ed25519, which has no hash of its own) there is no channel binding.
const SHA256_SIGNATURES: [&[u8]; 4] = [
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", // md5WithRSAEncryption
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", // sha1WithRSAEncryption
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", // sha256WithRSAEncryption
    b"\x2a\x86\x48\xce\x3d\x04\x03\x02",     // ecdsa-with-SHA256
];
const SHA384_SIGNATURES: [&[u8]; 2] = [
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", // sha384WithRSAEncryption
    b"\x2a\x86\x48\xce\x3d\x04\x03\x03",     // ecdsa-with-SHA384
];
const SHA512_SIGNATURES: [&[u8]; 2] = [
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", // sha512WithRSAEncryption
    b"\x2a\x86\x48\xce\x3d\x04\x03\x04",     // ecdsa-with-SHA512
];

/// `tls-server-end-point` of a certificate (RFC 5929): its hash, by the hash of its signature.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let oid = signature_algorithm(certificate)?;
    if SHA256_SIGNATURES.contains(&oid) {
        Some(Sha256::digest(certificate).to_vec())
    } else if SHA384_SIGNATURES.contains(&oid) {
        Some(Sha384::digest(certificate).to_vec())
    } else if SHA512_SIGNATURES.contains(&oid) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

const DER_SEQUENCE: u8 = 0x30;
const DER_OBJECT_IDENTIFIER: u8 = 0x06;

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { algorithm OID, … }, …
/// }`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (fields, _) = der_element(certificate, DER_SEQUENCE)?;
    let (_, after_signed_part) = der_element(fields, DER_SEQUENCE)?;
    let (algorithm, _) = der_element(after_signed_part, DER_SEQUENCE)?;
    der_element(algorithm, DER_OBJECT_IDENTIFIER).map(|(oid, _)| oid)
}

/// The contents of the DER element at the start of `input`, and what follows it.
fn der_element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > size_of::<u32>() {
            return None;
        }
        (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let element = |tag: u8, contents: &[u8]| {
            let mut out = vec![tag, 0x82, 0, 0];
            out[2..4].copy_from_slice(&u16::try_from(contents.len()).unwrap().to_be_bytes());
            out.extend_from_slice(contents);
            out
        };
        let signed_part = element(DER_SEQUENCE, &[7; 300]);
        let algorithm = element(DER_SEQUENCE, &element(DER_OBJECT_IDENTIFIER, oid));
        element(DER_SEQUENCE, &[signed_part, algorithm].concat())
    }

    #[test]
    fn the_hash_follows_the_signature() {
        let sha256 = certificate(SHA256_SIGNATURES[1]);
        assert_eq!(server_end_point(&sha256), Some(Sha256::digest(&sha256).to_vec()));
        let sha512 = certificate(SHA512_SIGNATURES[1]);
        assert_eq!(server_end_point(&sha512), Some(Sha512::digest(&sha512).to_vec()));
        assert_eq!(server_end_point(&certificate(b"\x2b\x65\x70")), None, "Ed25519 has no hash");
    }

    proptest! {
        #[test]
        fn a_damaged_certificate_is_no_panic(
            at in 0usize..330,
            byte in any::<u8>(),
            cut in 0usize..330,
        ) {
            let mut bytes = certificate(SHA384_SIGNATURES[0]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            if let Some(hash) = server_end_point(&bytes) {
                prop_assert!(hash.len() >= 32);
            }
        }
    }
}
