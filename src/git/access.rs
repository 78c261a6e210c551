//! Who may do what: personal access tokens and Entra access tokens, and three levels of access.
//!
//! Access is given to people by name ([`Account`]), or to a user, group, application or app role
//! of the directory ([`Grant`]); the highest counts. A personal access token never allows more
//! than its user may.

use super::tokens::{self, Tokens};
use aksim_runtime::oidc::{Claims, TokenError, TokenVerifier};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};

/// What somebody may do; each level includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Clone and fetch, see statuses.
    Read,
    /// Push, set statuses.
    Write,
    /// Make repositories, webhooks and tokens of others.
    Admin,
}

/// A person, or a service such as the pipelines, that the host knows by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login: `ada`.
    pub login: String,
    /// Name for people.
    pub name: String,
    /// Mail address in events.
    pub email: String,
    /// Object id in the directory: `oid` of the tokens.
    pub object_id: Option<String>,
    /// What it may do; `None` leaves that to grants.
    pub access: Option<Access>,
}

/// Access given to whoever's Entra token names the principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Object id of a user, group or service principal, client id of an application, or app role.
    pub principal: String,
    /// What it may do.
    pub access: Access,
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Principal {
    pub login: String,
    pub name: String,
    pub email: String,
    pub access: Option<Access>,
}

impl Principal {
    pub(super) fn may(&self, needed: Access) -> bool {
        self.access.is_some_and(|access| access >= needed)
    }
}

/// Why somebody is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing was shown.
    Anonymous,
    /// What was shown is not good.
    Credentials(String),
    /// Whether it is good cannot be found out now.
    Unavailable(String),
}

pub(super) struct Authenticator {
    pub tokens: Tokens,
    pub entra: Option<TokenVerifier>,
    pub accounts: Vec<Account>,
    pub grants: Vec<Grant>,
}

impl Authenticator {
    /// Whose request it is, by its `Authorization`: Basic with a token as the password (the user
    /// name is not looked at, as at GitHub), Bearer, or GitHub's `token`.
    pub(super) async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Refusal> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Err(Refusal::Anonymous) };
        let secret = value.to_str().ok().and_then(secret).ok_or_else(|| bad("Authorization is not readable"))?;
        if secret.is_empty() {
            return Err(Refusal::Anonymous);
        }
        if secret.starts_with(tokens::PREFIX) {
            return self.personal(&secret);
        }
        let Some(entra) = &self.entra else { return Err(bad("unknown token")) };
        match entra.verify(&secret).await {
            Ok(claims) => Ok(self.of_directory(&claims)),
            Err(TokenError::Unavailable { issuer, cause }) => Err(Refusal::Unavailable(format!("{issuer}: {cause}"))),
            // What is no token at all was meant as a password.
            Err(TokenError::Malformed(_)) => Err(bad("passwords are not accepted: use a personal access token")),
            Err(error) => Err(bad(&error.to_string())),
        }
    }

    /// An account by login.
    pub(super) fn account(&self, login: &str) -> Option<&Account> {
        self.accounts.iter().find(|a| a.login.eq_ignore_ascii_case(login))
    }

    fn personal(&self, token: &str) -> Result<Principal, Refusal> {
        let record = self.tokens.verify(token).ok_or_else(|| bad("the personal access token is not valid"))?;
        let account = self.account(&record.user).ok_or_else(|| bad("the token's user does not exist any more"))?;
        Ok(Principal {
            login: account.login.clone(),
            name: account.name.clone(),
            email: account.email.clone(),
            access: account.access.map(|access| access.min(record.access)),
        })
    }

    fn of_directory(&self, claims: &Claims) -> Principal {
        let mut ids = claims.groups();
        ids.extend(claims.roles());
        ids.extend(claims.oid());
        // A user's token must not get the rights of the application that asked for it.
        if claims.scp().is_empty() {
            ids.extend(claims.azp());
        }
        let held = |id: &str| ids.iter().any(|held| held.eq_ignore_ascii_case(id));
        let account = self.accounts.iter().find(|a| {
            let oid = claims.oid();
            a.object_id.as_deref().is_some_and(|id| oid.is_some_and(|oid| oid.eq_ignore_ascii_case(id)))
        });
        let granted = self.grants.iter().filter(|g| held(&g.principal)).map(|g| g.access);
        let access = granted.chain(account.and_then(|a| a.access)).max();
        if let Some(account) = account {
            let Account { login, name, email, .. } = account.clone();
            return Principal { login, name, email, access };
        }
        let upn = claims.preferred_username().or(claims.azp()).or(claims.oid()).unwrap_or(claims.sub());
        let login = upn.split('@').next().unwrap_or(upn).to_owned();
        let name = claims.name().unwrap_or(&login).to_owned();
        Principal { login, name, email: upn.to_owned(), access }
    }
}

fn bad(why: &str) -> Refusal {
    Refusal::Credentials(why.to_owned())
}

/// The token of an `Authorization`; git and GitHub put it into either half of Basic.
fn secret(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let password_is_filler = password.is_empty() || password == "x-oauth-basic";
    Some(if password_is_filler { user } else { password }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn authenticator(dir: &std::path::Path, access: Option<Access>) -> Authenticator {
        Authenticator {
            tokens: Tokens::open(&dir.join("tokens.json")).unwrap(),
            entra: None,
            accounts: vec![Account {
                login: "ada".into(),
                name: "Ada".into(),
                email: "ada@x".into(),
                object_id: None,
                access,
            }],
            grants: Vec::new(),
        }
    }

    async fn sign_in(authenticator: &Authenticator, value: &str) -> Result<Principal, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        authenticator.authenticate(&headers).await
    }

    #[tokio::test]
    async fn a_token_allows_no_more_than_its_user_may() {
        let dir = tempfile::tempdir().unwrap();
        let reader = authenticator(dir.path(), Some(Access::Read));
        let (token, _) = reader.tokens.issue("ada", "", Access::Admin, None).unwrap();
        let principal = sign_in(&reader, &format!("Bearer {token}")).await.unwrap();
        assert!(principal.may(Access::Read) && !principal.may(Access::Write));
        for (user, password) in [("ada", token.as_str()), (&token, ""), (&token, "x-oauth-basic")] {
            let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            assert_eq!(sign_in(&reader, &basic).await.unwrap().login, "ada");
        }
        let nobody = Authenticator { accounts: Vec::new(), ..reader };
        assert!(matches!(sign_in(&nobody, &format!("token {token}")).await, Err(Refusal::Credentials(_))));
    }

    #[tokio::test]
    async fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let host = authenticator(dir.path(), Some(Access::Admin));
        assert_eq!(host.authenticate(&HeaderMap::new()).await, Err(Refusal::Anonymous));
        for value in ["Bearer x", "Basic %%%", "Digest a", "Bearer akp_1", "Basic"] {
            assert!(matches!(sign_in(&host, value).await, Err(Refusal::Credentials(_))), "{value}");
        }
    }
}
