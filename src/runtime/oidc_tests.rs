//! Against an issuer of this test: discovery and keys over TLS, found by its Azure name.

use super::*;
use crate::{http, net, pki::Pki};
use aksim_model::endpoint::AzureName;
use axum::{Json, Router, routing::get};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;

const HOST: &str = "login.microsoftonline.com";
const ISSUER: &str = "https://login.microsoftonline.com/t/v2.0";

struct Issuer {
    keys: Arc<Mutex<Vec<Value>>>,
    fetches: Arc<AtomicUsize>,
    verifier: TokenVerifier,
    _stop: tokio_util::sync::DropGuard,
    _dir: tempfile::TempDir,
    _tasks: tokio::task::JoinSet<()>,
}

struct Signer {
    kid: &'static str,
    key: EncodingKey,
    algorithm: Algorithm,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Self { kid, key: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(), algorithm: Algorithm::ES256 }
    }
    fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk
    }
    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "me", "sub": "s", "exp": now() + 300, "nbf": now(), "scp": "a b", "groups": ["g"] })
}

async fn issuer(keys: Vec<Value>) -> Issuer {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), "aksim test").unwrap();
    let listener = net::listen_loopback(0).await.unwrap();
    let name = AzureName { host: HOST.into(), port: 443, target: listener.local_addr().unwrap() };
    let keys = Arc::new(Mutex::new(keys));
    let fetches = Arc::new(AtomicUsize::new(0));
    let (served, counted) = (keys.clone(), fetches.clone());
    let router = Router::new()
        .route(
            "/t/v2.0/.well-known/openid-configuration",
            get(|| async { Json(json!({ "issuer": ISSUER, "jwks_uri": format!("https://{HOST}/t/keys") })) }),
        )
        .route(
            "/t/keys",
            get(move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
                Json(json!({ "keys": *served.lock() }))
            }),
        );
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let (tls, token) = (pki.server_config(&[HOST], false).unwrap(), stop.clone());
    tasks.spawn(async move { http::serve(listener, Some(tls), router, token).await.unwrap() });
    let client = net::azure_http_client(&pki, &[name]).unwrap();
    let config = OidcConfig { issuer: ISSUER.into(), audiences: vec!["me".into()], http: client };
    let verifier = TokenVerifier::new(config);
    Issuer { keys, fetches, verifier, _stop: stop.drop_guard(), _dir: dir, _tasks: tasks }
}

#[tokio::test]
async fn a_good_token_is_accepted_and_its_keys_are_fetched_once() {
    let signer = Signer::new("one");
    let issuer = issuer(vec![signer.jwk()]).await;
    let token = signer.sign(&claims());
    let all = futures::future::join_all((0..8).map(|_| issuer.verifier.verify(&token))).await;
    let first = all.into_iter().collect::<Result<Vec<_>, _>>().unwrap().remove(0);
    assert_eq!((first.sub(), first.scp(), first.groups()), ("s", vec!["a", "b"], vec!["g"]));
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_bad_claim_is_named() {
    let signer = Signer::new("one");
    let issuer = issuer(vec![signer.jwk()]).await;
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        signer.sign(&claims)
    };
    let verdict = async |token: String| issuer.verifier.verify(&token).await.map(drop);
    assert!(matches!(verdict(with("aud", json!(["you"]))).await, Err(TokenError::Audience { .. })));
    assert!(matches!(verdict(with("aud", Value::Null)).await, Err(TokenError::MissingClaim(c)) if c == "aud"));
    assert!(matches!(verdict(with("iss", json!("https://evil"))).await, Err(TokenError::Issuer { .. })));
    assert!(matches!(verdict(with("exp", json!(now() - 61))).await, Err(TokenError::Expired)));
    assert!(matches!(verdict(with("exp", json!(now() - 30))).await, Ok(())));
    assert!(matches!(verdict(with("exp", Value::Null)).await, Err(TokenError::MissingClaim(c)) if c == "exp"));
    assert!(matches!(verdict(with("nbf", json!(now() + 90))).await, Err(TokenError::NotYetValid)));
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let (signer, other) = (Signer::new("one"), Signer::new("one"));
    let issuer = issuer(vec![signer.jwk()]).await;
    assert!(matches!(issuer.verifier.verify(&other.sign(&claims())).await, Err(TokenError::Signature)));
    let encode = |v: &Value| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(v.to_string())
    };
    let none = format!("{}.{}.", encode(&json!({ "alg": "none", "kid": "one" })), encode(&claims()));
    assert!(issuer.verifier.verify(&none).await.is_err());
    // The public key taken for an HMAC secret.
    let hmac = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(signer.jwk()["x"].as_str().unwrap().as_bytes());
    let confused = jsonwebtoken::encode(&hmac, &claims(), &secret).unwrap();
    assert!(matches!(issuer.verifier.verify(&confused).await, Err(TokenError::Algorithm)));
    for garbage in ["", "a", "a.b", "a.b.c", "....", &"x".repeat(MAX_TOKEN + 1)] {
        assert!(matches!(issuer.verifier.verify(garbage).await, Err(TokenError::Malformed(_))), "{garbage:.9}");
    }
}

#[tokio::test]
async fn a_rotation_is_followed_and_unknown_keys_do_not_flood_the_issuer() {
    let (old, new) = (Signer::new("one"), Signer::new("two"));
    let issuer = issuer(vec![old.jwk()]).await;
    issuer.verifier.verify(&old.sign(&claims())).await.unwrap();
    issuer.keys.lock().push(new.jwk());
    for _ in 0..5 {
        let refused = issuer.verifier.verify(&new.sign(&claims())).await;
        assert!(matches!(refused, Err(TokenError::UnknownKey { .. })));
    }
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
    // The pause passes.
    let set = issuer.verifier.inner.cache.lock().keys.take().unwrap();
    let past = Instant::now().checked_sub(REFETCH_PAUSE).unwrap();
    let set = Arc::try_unwrap(set).unwrap_or_else(|_| panic!("the set is shared"));
    issuer.verifier.inner.cache.lock().keys = Some(Arc::new(KeySet { fetched: past, ..set }));
    issuer.verifier.verify(&new.sign(&claims())).await.unwrap();
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_absent_issuer_is_said_to_be_absent() {
    let signer = Signer::new("one");
    let issuer = issuer(vec![]).await;
    let config = OidcConfig {
        issuer: "https://login.microsoftonline.com/x/v2.0".into(),
        ..issuer.verifier.inner.config.clone()
    };
    let refused = TokenVerifier::new(config).verify(&signer.sign(&claims())).await.unwrap_err();
    assert!(matches!(refused, TokenError::Unavailable { .. }), "{refused}");
}
