//! `/oauth2/token` and `/oauth2/exchange`: Docker's token protocol with ACR's additions.

use super::{Access, AuthError, Authenticator, Principal, authorization, basic, token::ACCESS_SECONDS};
use http::HeaderMap;
use serde_json::{Value, json};

/// Fields of a query or form, in order; a name may come more than once.
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// From `application/x-www-form-urlencoded`.
    pub fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }
    /// The first value of a field, unless empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }
    fn required(&self, name: &str) -> Result<&str, AuthError> {
        self.get(name).ok_or_else(|| AuthError::BadRequest(format!("{name} is missing")))
    }
    /// Scopes: the field may be repeated, and each may hold several separated by blanks.
    fn scopes(&self) -> Result<Vec<Access>, AuthError> {
        let texts = self.0.iter().filter(|(n, _)| n == "scope").flat_map(|(_, v)| v.split_ascii_whitespace());
        texts.map(|t| Access::parse(t).ok_or_else(|| AuthError::BadRequest(format!("{t:?} is not a scope")))).collect()
    }
}

impl Authenticator {
    /// `GET /oauth2/token`: an access token for the credentials of the `Authorization` header.
    ///
    /// # Errors
    /// [`AuthError`]; without credentials too: there is no anonymous access.
    pub async fn token_by_header(&self, headers: &HeaderMap, query: &Fields) -> Result<Value, AuthError> {
        self.check_service(query)?;
        let scopes = query.scopes()?;
        let credentials = authorization(headers).and_then(|(scheme, value)| basic(scheme, value));
        let Some((user, password)) = credentials else {
            return Err(AuthError::BadCredentials("authentication required: anonymous access is not allowed".into()));
        };
        let principal = self.sign_in(&user, &password).await?;
        let offline = query.get("offline_token") == Some("true");
        self.answer(&principal, scopes, offline)
    }

    /// `POST /oauth2/token`: an access token by refresh token or password.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn token_by_form(&self, form: &Fields) -> Result<Value, AuthError> {
        self.check_service(form)?;
        let scopes = form.scopes()?;
        let offline = form.get("access_type") == Some("offline");
        let principal = match form.required("grant_type")? {
            "refresh_token" => {
                let token = form.required("refresh_token")?;
                self.signer.verify_refresh(token).map_err(|e| AuthError::BadCredentials(e.to_string()))?
            }
            "password" => self.sign_in(form.required("username")?, form.required("password")?).await?,
            other => return Err(AuthError::BadRequest(format!("grant_type {other:?} is not supported"))),
        };
        self.answer(&principal, scopes, offline)
    }

    /// `POST /oauth2/exchange`: a refresh token of the registry for an access token of Entra.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn exchange(&self, form: &Fields) -> Result<Value, AuthError> {
        self.check_service(form)?;
        let entra = self.entra.as_ref().ok_or_else(|| AuthError::BadRequest("the registry has no tenant".into()))?;
        match form.required("grant_type")? {
            "access_token" | "access_token_refresh_token" => {}
            other => return Err(AuthError::BadRequest(format!("grant_type {other:?} is not supported"))),
        }
        if let Some(tenant) = form.get("tenant")
            && !tenant.eq_ignore_ascii_case(entra.tenant_id())
        {
            return Err(AuthError::BadCredentials(format!("tenant {tenant} is not this registry's")));
        }
        let principal = entra.sign_in_token(form.required("access_token")?).await?;
        Ok(json!({ "refresh_token": self.signer.refresh_token(&principal)? }))
    }

    fn check_service(&self, fields: &Fields) -> Result<(), AuthError> {
        match fields.get("service") {
            Some(service) if service != self.login_server => {
                Err(AuthError::BadRequest(format!("service {service:?} is not {}", self.login_server)))
            }
            _ => Ok(()),
        }
    }

    /// A token for the part of `scopes` that the principal may have; what is left out is refused when used.
    fn answer(&self, principal: &Principal, scopes: Vec<Access>, offline: bool) -> Result<Value, AuthError> {
        let granted: Vec<Access> =
            scopes.iter().map(|s| principal.rights.grant(s)).filter(|g| !g.actions.is_empty()).collect();
        let mut answer = json!({
            "access_token": self.signer.access_token(principal, granted)?,
            "expires_in": ACCESS_SECONDS,
        });
        if offline {
            answer["refresh_token"] = self.signer.refresh_token(principal)?.into();
        }
        Ok(answer)
    }
}
