//! The caller, and personal access tokens.

use super::{
    super::{access::Access, shapes},
    Answer, ApiError, Caller, empty, json, parse,
};
use axum::{body::Bytes, extract::Path};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// Longest life of a token, days.
const MAX_DAYS: i64 = 3650;

#[derive(Deserialize)]
struct NewToken {
    /// The caller when absent.
    user: Option<String>,
    #[serde(default)]
    note: String,
    access: Access,
    /// For ever when absent.
    expires_in_days: Option<i64>,
}

pub(super) async fn user(caller: Caller) -> Answer {
    let mut user = shapes::user(&caller.host, &caller.principal.login);
    user["name"] = caller.principal.name.clone().into();
    user["email"] = caller.principal.email.clone().into();
    json(StatusCode::OK, user)
}

pub(super) async fn list(caller: Caller) -> Answer {
    let all = caller.host.auth.tokens.list();
    let seen = all.iter().filter(|t| t.user == caller.principal.login || caller.principal.may(Access::Admin));
    json(StatusCode::OK, seen.map(shapes::token).collect())
}

pub(super) async fn create(caller: Caller, body: Bytes) -> Answer {
    let new: NewToken = parse(&body)?;
    let asked = new.user.unwrap_or_else(|| caller.principal.login.clone());
    let auth = &caller.host.auth;
    let account = auth.account(&asked).ok_or_else(|| ApiError::Unprocessable(format!("no user {asked:?}")))?;
    if account.login != caller.principal.login {
        caller.must(Access::Admin)?;
    }
    // Nobody gets more by making a token.
    caller.must(new.access)?;
    let expires_at = match new.expires_in_days {
        None => None,
        Some(days) if (1..=MAX_DAYS).contains(&days) => {
            let life = SignedDuration::from_hours(days * 24);
            Some(Timestamp::now().checked_add(life).map_err(|e| ApiError::Unprocessable(e.to_string()))?)
        }
        Some(_) => return Err(ApiError::Unprocessable(format!("expires_in_days is 1 to {MAX_DAYS}"))),
    };
    let (token, record) = auth.tokens.issue(&account.login, &new.note, new.access, expires_at)?;
    let mut shown = shapes::token(&record);
    shown["token"] = token.into();
    json(StatusCode::CREATED, shown)
}

pub(super) async fn revoke(caller: Caller, Path(id): Path<u64>) -> Answer {
    let all = caller.host.auth.tokens.list();
    let token = all.iter().find(|t| t.id == id).ok_or(ApiError::NotFound)?;
    if token.user != caller.principal.login && !caller.principal.may(Access::Admin) {
        return Err(ApiError::NotFound);
    }
    caller.host.auth.tokens.revoke(id)?;
    empty(StatusCode::NO_CONTENT)
}
