//! Signatures of webhook bodies, as GitHub makes them: HMAC over the raw body.

use ring::hmac;

/// Value of `X-Hub-Signature-256`.
pub fn sha256(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body)))
}

/// Value of `X-Hub-Signature`, kept for old receivers.
pub fn sha1(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    format!("sha1={}", hex::encode(hmac::sign(&key, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of "Validating webhook deliveries" in GitHub's documentation, and of RFC 2202 §3.
    #[test]
    fn known_answers() {
        assert_eq!(
            sha256("It's a Secret to Everybody", b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
        assert_eq!(sha1("Jefe", b"what do ya want for nothing?"), "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    }
}
