//! Client assertions: `private_key_jwt` signed by the key of a registered certificate (RFC 7523).

use super::{
    directory::Application,
    error::{
        ASSERTION_AUDIENCE, ASSERTION_KEY, ASSERTION_SIGNATURE, ASSERTION_TIME, EntraError, MALFORMED, NO_FEDERATION,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, errors::ErrorKind};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Map, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Checks an assertion of `client` for one of `audiences`.
pub(super) fn verify(client: &Application, assertion: &str, audiences: &[String]) -> Result<(), EntraError> {
    let header = jsonwebtoken::decode_header(assertion)
        .map_err(|_| MALFORMED.because("Invalid request. The client assertion is not a signed JWT."))?;
    if !matches!(header.alg, Algorithm::RS256 | Algorithm::PS256) {
        return Err(ASSERTION_SIGNATURE.because("Assertion failed signature validation: algorithm not supported."));
    }
    let insecure = jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(assertion);
    let issuer = insecure.ok().and_then(|data| Some(data.claims.get("iss")?.as_str()?.to_owned())).unwrap_or_default();
    if issuer != client.client_id.to_string() {
        return Err(NO_FEDERATION.because(format!(
            "No matching federated identity record found for presented assertion issuer '{issuer}'. \
             Federated credentials are not emulated."
        )));
    }
    let key = registered_key(client, &header).ok_or_else(|| {
        ASSERTION_KEY.because(format!(
            "The certificate with identifier used to sign the client assertion is not registered on application. \
             [Reason - The key was not found., Thumbprint of key used by client: '{}']",
            header.x5t_s256.as_deref().or(header.x5t.as_deref()).unwrap_or_default()
        ))
    })?;
    let mut validation = Validation::new(header.alg);
    validation.validate_nbf = true;
    validation.set_audience(audiences);
    validation.set_issuer(&[&issuer]);
    validation.sub = Some(issuer.clone());
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    jsonwebtoken::decode::<Map<String, Value>>(assertion, &key, &validation).map(drop).map_err(|error| {
        match error.kind() {
            ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => ASSERTION_TIME.because(
                "Client assertion is not within its valid time range. Please review the documentation at \
                 https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
            ),
            ErrorKind::InvalidAudience => ASSERTION_AUDIENCE.because(
                "Client assertion audience claim does not match Realm issuer. Review the documentation at \
                 https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
            ),
            other => ASSERTION_SIGNATURE.because(format!("Assertion failed signature validation: {other:?}.")),
        }
    })
}

fn registered_key(client: &Application, header: &Header) -> Option<DecodingKey> {
    client.certificates.iter().find_map(|pem| {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let sha256 = URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate));
        let sha1 = URL_SAFE_NO_PAD.encode(Sha1::digest(&certificate));
        // MSAL for Python pads its thumbprints.
        let named = match (&header.x5t_s256, &header.x5t) {
            (Some(thumbprint), _) => thumbprint.trim_end_matches('=') == sha256,
            (None, Some(thumbprint)) => thumbprint.trim_end_matches('=') == sha1,
            (None, None) => false,
        };
        if !named {
            return None;
        }
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        // For RSA the subject's public key is a PKCS#1 RSAPublicKey, as the decoder wants it.
        Some(DecodingKey::from_rsa_der(&parsed.public_key().subject_public_key.data))
    })
}
