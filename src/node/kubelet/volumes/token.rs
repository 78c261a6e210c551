//! Service account tokens of projected volumes, renewed before they expire.

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection},
};
use kube::{Api, Client, api::PostParams};
use std::time::Duration;
use tokio::time::Instant;

/// A token is renewed at this age at the latest, as the kubelet does.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Next try after a renewal failed while the old token still holds.
const RETRY: Duration = Duration::from_secs(30);

/// Where a token comes from, and the current one.
pub(super) struct TokenSource {
    account: String,
    audience: Option<String>,
    lifetime: i64,
    pod: BoundObjectReference,
    current: Option<Token>,
}

struct Token {
    data: Vec<u8>,
    renew: Instant,
    expires: Instant,
}

impl TokenSource {
    pub fn new(pod: &Pod, spec: &ServiceAccountTokenProjection) -> Self {
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
        Self {
            account: account.filter(|a| !a.is_empty()).unwrap_or_else(|| "default".into()),
            audience: spec.audience.clone().filter(|a| !a.is_empty()),
            lifetime: spec.expiration_seconds.unwrap_or(3600),
            pod: BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            },
            current: None,
        }
    }

    /// The token, asked for anew when it has aged.
    pub async fn get(&mut self, client: &Client, namespace: &str) -> Result<Vec<u8>, kube::Error> {
        let now = Instant::now();
        if let Some(token) = self.current.as_ref().filter(|t| now < t.renew) {
            return Ok(token.data.clone());
        }
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: self.audience.clone().map(|a| vec![a]),
                bound_object_ref: Some(self.pod.clone()),
                expiration_seconds: Some(self.lifetime),
            }),
            ..Default::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let answer = api.create_token_request(&self.account, &PostParams::default(), &request).await;
        let status = match (answer, &mut self.current) {
            (Ok(answer), _) => answer.status.unwrap_or_default(),
            // Better an ageing token than none.
            (Err(error), Some(token)) if now < token.expires => {
                tracing::warn!(%error, account = self.account, "token not renewed");
                token.renew = now + RETRY;
                return Ok(token.data.clone());
            }
            (Err(error), _) => return Err(error),
        };
        let left = status.expiration_timestamp.map(|t| t.0.duration_since(jiff::Timestamp::now()));
        let left = left.and_then(|l| Duration::try_from(l).ok()).unwrap_or_default();
        let data = status.token.unwrap_or_default().into_bytes();
        self.current =
            Some(Token { data: data.clone(), renew: now + (left * 8 / 10).min(MAX_AGE), expires: now + left });
        Ok(data)
    }

    /// When the token must be renewed.
    pub fn renew_at(&self) -> Option<Instant> {
        self.current.as_ref().map(|t| t.renew)
    }
}
