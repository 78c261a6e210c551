//! The issuer over HTTPS, by its Azure name: the protocol, and Microsoft's own client library.

use aksim::{
    identity::{ApplicationKind, ApplicationSpec, DirectorySpec, IdentityConfig, Issuer, ObjectIds, UserSpec},
    runtime::{
        component::{Component, RunContext, readiness},
        net,
        oidc::{Claims, OidcConfig, TokenError, TokenVerifier},
        pki::Pki,
        recorder::Recorder,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, path::Path};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

const AKS: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";
const AZURE_CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
const TENANT: &str = "contoso.onmicrosoft.com";
const AUTHORITY: &str = "https://login.microsoftonline.com/contoso.onmicrosoft.com";
const CALLBACK: &str = "http://localhost:8080/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

struct Running {
    ids: ObjectIds,
    shop: String,
    secret: String,
    http: reqwest::Client,
    browser: reqwest::Client,
    local: String,
    port: u16,
    handle: aksim::identity::IssuerHandle,
    recorder: Recorder,
    tasks: tokio::task::JoinSet<()>,
    stop: DropGuard,
}

fn directory(certificates: Vec<String>) -> DirectorySpec {
    let secrets = if certificates.is_empty() { vec![] } else { vec!["sh0p~secret".to_owned()] };
    DirectorySpec {
        tenant: "contoso".into(),
        users: vec![
            UserSpec { name: "ada".into(), groups: vec!["customers".into()], ..UserSpec::default() },
            UserSpec {
                name: "olga".into(),
                password: Some("s3cret & more".into()),
                groups: vec!["shop-admins".into()],
                roles: vec!["Shop.Admin".into()],
                ..UserSpec::default()
            },
        ],
        applications: vec![
            ApplicationSpec {
                name: "shop".into(),
                redirect_uris: vec!["http://localhost/callback".into(), "https://shop.example/cb".into()],
                app_roles: vec!["Shop.Admin".into(), "Shop.Job".into()],
                roles: vec!["Shop.Job".into()],
                scopes: vec!["orders.read".into()],
                secrets,
                certificates,
                ..ApplicationSpec::default()
            },
            ApplicationSpec {
                name: "spa".into(),
                kind: ApplicationKind::SinglePage,
                redirect_uris: vec!["https://spa.example/".into()],
                ..ApplicationSpec::default()
            },
        ],
        ..DirectorySpec::default()
    }
}

async fn start(dir: &Path, certificates: Vec<String>) -> Running {
    let pki = Pki::open(&dir.join("pki"), "aksim test").unwrap();
    let config = IdentityConfig::new(dir.join("identity"), pki.clone(), directory(certificates));
    let issuer = Issuer::bind(config).await.unwrap();
    let stop = CancellationToken::new();
    let (signal, mut ready) = readiness();
    let recorder = Recorder::in_memory();
    let context = RunContext { shutdown: stop.clone(), readiness: signal, recorder: recorder.clone() };
    let mut tls = pki.client_config(None).unwrap();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let browser = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .resolve("login.microsoftonline.com", issuer.address())
        .build()
        .unwrap();
    let ids = ObjectIds::of_tenant("contoso");
    let mut running = Running {
        ids,
        shop: ids.application("shop").to_string(),
        secret: issuer.client_secret("shop").unwrap().to_owned(),
        http: net::azure_http_client(&pki, &issuer.azure_names()).unwrap(),
        browser,
        local: issuer.local_url(),
        port: issuer.address().port(),
        handle: issuer.handle(),
        recorder,
        tasks: tokio::task::JoinSet::new(),
        stop: stop.drop_guard(),
    };
    running.tasks.spawn(async move { Box::new(issuer).run(context).await.unwrap() });
    assert!(ready.wait().await);
    running
}

impl Running {
    async fn stop(mut self) {
        drop(self.stop);
        while self.tasks.join_next().await.is_some() {}
    }
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let response = self.http.post(format!("{AUTHORITY}{path}")).form(form).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
    async fn token(&self, form: &[(&str, &str)]) -> Value {
        let (status, body) = self.post("/oauth2/v2.0/token", form).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }
    /// The AADSTS code and OAuth error of a refused token request.
    async fn refused(&self, form: &[(&str, &str)]) -> (u64, String) {
        let (status, body) = self.post("/oauth2/v2.0/token", form).await;
        assert!(status.is_client_error(), "{status}");
        let code = body["error_codes"][0].as_u64().unwrap();
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with(&format!("AADSTS{code}: ")), "{description}");
        for field in ["timestamp", "trace_id", "correlation_id"] {
            assert!(body[field].is_string(), "{field}");
        }
        (code, body["error"].as_str().unwrap().to_owned())
    }
    async fn verify(&self, token: &Value, audience: &str) -> Result<Claims, TokenError> {
        let config = OidcConfig {
            issuer: format!("https://login.microsoftonline.com/{}/v2.0", self.ids.tenant()),
            audiences: vec![audience.to_owned()],
            http: self.http.clone(),
        };
        TokenVerifier::new(config).verify(token.as_str().unwrap()).await
    }
    fn authorize_url(&self, changes: &[(&str, &str)]) -> Url {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let mut params: Vec<(&str, &str)> = vec![
            ("client_id", &self.shop),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("scope", "openid profile offline_access"),
            ("state", "st&te"),
            ("nonce", "n0nce"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        for (key, value) in changes {
            params.retain(|(known, _)| known != key);
            if !value.is_empty() {
                params.push((key, value));
            }
        }
        Url::parse_with_params(&format!("{AUTHORITY}/oauth2/v2.0/authorize"), params).unwrap()
    }
    /// Fetches a sign-in page: its hidden fields and the cookies set.
    async fn sign_in_page(&self, url: Url) -> (Vec<(String, String)>, String) {
        let response = self.browser.get(url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(
            response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("frame-ancestors 'none'")
        );
        let cookies = cookies(&response);
        let page = response.text().await.unwrap();
        assert!(page.contains("ada@contoso.onmicrosoft.com"), "the picker lists the users");
        let hidden = regex::Regex::new(r#"type="hidden" name="(\w+)" value="([^"]*)""#).unwrap();
        let plain = |text: &str| text.replace("&amp;", "&").replace("&quot;", "\"").replace("&#39;", "'");
        let fields = hidden.captures_iter(&page).take(2).map(|c| (c[1].to_owned(), plain(&c[2]))).collect();
        (fields, cookies)
    }
    async fn login(&self, fields: &[(String, String)], extra: &[(&str, &str)], cookies: &str) -> reqwest::Response {
        let mut form: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        form.extend(extra);
        let url = format!("{AUTHORITY}/login");
        self.browser.post(url).header(header::COOKIE, cookies).form(&form).send().await.unwrap()
    }
    /// A code for `user`, and the session's cookies.
    async fn code(&self, user: &str) -> (String, String) {
        let (fields, cookies) = self.sign_in_page(self.authorize_url(&[])).await;
        let response = self.login(&fields, &[("account", user)], &cookies).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let answer = answer(&response);
        assert_eq!(answer["state"], "st&te");
        (answer["code"].clone(), self::cookies(&response))
    }
    async fn redeem(&self, code: &str) -> Value {
        self.token(&self.redemption(code)).await
    }
    fn redemption<'a>(&'a self, code: &'a str) -> [(&'a str, &'a str); 6] {
        [
            ("grant_type", "authorization_code"),
            ("client_id", &self.shop),
            ("client_secret", &self.secret),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ]
    }
}

fn cookies(response: &reqwest::Response) -> String {
    let set = response.headers().get_all(header::SET_COOKIE).iter().map(|v| v.to_str().unwrap());
    set.inspect(|cookie| assert!(cookie.contains("; Secure; HttpOnly; "), "{cookie}"))
        .map(|cookie| cookie.split(';').next().unwrap())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Parameters of the redirect to the application.
fn answer(response: &reqwest::Response) -> HashMap<String, String> {
    let location = Url::parse(response.headers()[header::LOCATION].to_str().unwrap()).unwrap();
    assert!(location.as_str().starts_with(CALLBACK), "{location}");
    let encoded = location.query().or(location.fragment()).unwrap();
    url::form_urlencoded::parse(encoded.as_bytes()).into_owned().collect()
}

fn unverified(token: &Value) -> Value {
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn discovery_is_entras() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    let get = async |url: &str| running.http.get(url).send().await.unwrap().json::<Value>().await.unwrap();
    let tenant = running.ids.tenant();
    let by_name = get(&format!("{AUTHORITY}/v2.0/.well-known/openid-configuration")).await;
    let by_id = get(&format!("https://login.microsoftonline.com/{tenant}/v2.0/.well-known/openid-configuration")).await;
    assert_eq!(by_name, by_id);
    assert_eq!(by_name["issuer"], format!("https://login.microsoftonline.com/{tenant}/v2.0"));
    assert_eq!(by_name["jwks_uri"], format!("https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys"));
    let browser = by_name["authorization_endpoint"].as_str().unwrap();
    assert!(browser.starts_with(&running.local), "{browser}");
    let common = get("https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration").await;
    assert_eq!(common["issuer"], "https://login.microsoftonline.com/{tenantid}/v2.0");
    let local = get(&format!("{}/contoso/v2.0/.well-known/openid-configuration", running.local)).await;
    assert!(local["token_endpoint"].as_str().unwrap().starts_with(&running.local));
    assert_eq!(local["issuer"], by_name["issuer"]);
    let keys = get(by_name["jwks_uri"].as_str().unwrap()).await;
    let key = &keys["keys"][0];
    assert_eq!((&key["kty"], &key["use"], &key["kid"]), (&json!("RSA"), &json!("sig"), &key["x5t"]));
    let missing =
        running.http.get("https://login.microsoftonline.com/fabrikam/discovery/v2.0/keys").send().await.unwrap();
    assert_eq!(missing.status(), StatusCode::BAD_REQUEST);
    assert_eq!(missing.json::<Value>().await.unwrap()["error_codes"], json!([90002]));
    running.stop().await;
}

#[tokio::test]
async fn a_code_becomes_tokens_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    let (code, session) = running.code("olga@contoso.onmicrosoft.com").await;
    let tokens = running.redeem(&code).await;
    let claims = running.verify(&tokens["id_token"], &running.shop).await.unwrap();
    assert_eq!(claims.oid(), Some(running.ids.user("olga").to_string().as_str()));
    assert_eq!(claims.groups(), [running.ids.group("shop-admins").to_string()]);
    assert_eq!(claims.roles(), ["Shop.Admin"]);
    assert_eq!(claims.preferred_username(), Some("olga@contoso.onmicrosoft.com"));
    assert_eq!((claims.nonce(), claims.text("ver")), (Some("n0nce"), Some("2.0")));
    assert_eq!(running.refused(&running.redemption(&code)).await, (54005, "invalid_grant".into()));
    // The browser's session signs in again without a page.
    let again = running.browser.get(running.authorize_url(&[("prompt", "none")]));
    let silent = answer(&again.header(header::COOKIE, &session).send().await.unwrap());
    assert!(silent.contains_key("code"), "{silent:?}");
    let signed_out = running.browser.get(running.authorize_url(&[("prompt", "none")])).send().await.unwrap();
    assert_eq!(answer(&signed_out)["error"], "login_required");
    let other = running.browser.get(running.authorize_url(&[("login_hint", "ada")]));
    assert_eq!(other.header(header::COOKIE, &session).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(running.recorder.world().seq, 2, "both sign-ins are on record");
    running.stop().await;
}

#[tokio::test]
async fn a_code_is_bound_to_client_redirect_and_verifier() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    let attempt = async |key: &str, value: &str| {
        let (code, _) = running.code("ada").await;
        let mut form = running.redemption(&code).to_vec();
        form.retain(|(name, _)| *name != key);
        if !value.is_empty() {
            form.push((key, value));
        }
        running.refused(&form).await.0
    };
    assert_eq!(attempt("code_verifier", &"x".repeat(43)).await, 501481);
    assert_eq!(attempt("code_verifier", "").await, 501481);
    assert_eq!(attempt("redirect_uri", "http://localhost:9/callback").await, 500112);
    assert_eq!(attempt("client_secret", "wrong").await, 7000215);
    assert_eq!(attempt("client_secret", "").await, 7000218);
    assert_eq!(attempt("client_id", AZURE_CLI).await, 700025);
    assert_eq!(attempt("code", "1.made-up").await, 70000);
    assert_eq!(attempt("grant_type", "").await, 900144);
    assert_eq!(attempt("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer").await, 70003);
    running.stop().await;
}

#[tokio::test]
async fn a_bad_request_never_reaches_a_foreign_address() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    for (changes, code) in [
        (vec![("redirect_uri", "https://evil.example/")], "AADSTS50011"),
        (vec![("redirect_uri", "http://localhost:8080/callback/../x")], "AADSTS50011"),
        (vec![("client_id", "8a5c5a5b-0000-0000-0000-000000000000")], "AADSTS700016"),
        (vec![("redirect_uri", "")], "AADSTS90014"),
        (vec![("client_id", "<script>alert(1)</script>")], "AADSTS700016"),
    ] {
        let response = running.browser.get(running.authorize_url(&changes)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let page = response.text().await.unwrap();
        assert!(page.contains(code), "{page}");
        assert!(!page.contains("<script>alert"), "what comes in goes out escaped");
    }
    for (changes, error) in [
        (vec![("response_type", "token")], "unsupported_response_type"),
        (vec![("scope", "api://nowhere/x")], "invalid_resource"),
        (vec![("response_type", "id_token"), ("response_mode", "query")], "invalid_request"),
        (vec![("code_challenge", "short")], "invalid_request"),
    ] {
        let response = running.browser.get(running.authorize_url(&changes)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(answer(&response)["error"], error);
    }
    let unproven = [("client_id", AZURE_CLI), ("code_challenge", ""), ("redirect_uri", "http://localhost:7/")];
    let response = running.browser.get(running.authorize_url(&unproven)).send().await.unwrap();
    let location = response.headers()[header::LOCATION].to_str().unwrap();
    assert!(location.starts_with("http://localhost:7/?") && location.contains("AADSTS9002325"), "{location}");
    let logout = |to: &str| format!("{AUTHORITY}/oauth2/v2.0/logout?post_logout_redirect_uri={to}");
    let foreign = running.browser.get(logout("https://evil.example/")).send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::OK);
    let own = running.browser.get(logout("https://shop.example/cb")).send().await.unwrap();
    assert_eq!(own.headers()[header::LOCATION], "https://shop.example/cb");
    running.stop().await;
}

#[tokio::test]
async fn the_form_takes_only_its_own_browser_and_the_right_password() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    let (fields, cookies) = running.sign_in_page(running.authorize_url(&[])).await;
    let account = [("account", "ada")];
    assert_eq!(running.login(&fields, &account, "").await.status(), StatusCode::BAD_REQUEST);
    let (_, foreign) = running.sign_in_page(running.authorize_url(&[])).await;
    assert_eq!(running.login(&fields, &account, &foreign).await.status(), StatusCode::BAD_REQUEST);
    let wrong = running.login(&fields, &[("login", "olga"), ("passwd", "nope")], &cookies).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let page = wrong.text().await.unwrap();
    assert!(page.contains("AADSTS50126"));
    // The return key presses the first button of the form with the password.
    let form = &page[page.find("name=\"passwd\"").unwrap()..];
    assert!(form[form.find("<button").unwrap()..].starts_with("<button class=\"primary\">Sign in"), "{form}");
    let right = running.login(&fields, &[("login", "olga"), ("passwd", "s3cret & more")], &cookies).await;
    assert!(answer(&right).contains_key("code"));
    let cancelled = running.login(&fields, &[("cancel", "1")], &cookies).await;
    assert_eq!(answer(&cancelled)["error"], "access_denied");
    // A form whose request was altered is checked again.
    let mut altered = fields.clone();
    altered
        .iter_mut()
        .filter(|(k, _)| k == "ctx")
        .for_each(|(_, v)| *v = v.replace("localhost%3A8080", "evil.example"));
    assert_ne!(altered, fields);
    assert_eq!(running.login(&altered, &account, &cookies).await.status(), StatusCode::BAD_REQUEST);
    running.stop().await;
}

#[tokio::test]
async fn form_post_carries_an_id_token_and_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    let url = running.authorize_url(&[("response_type", "code id_token"), ("response_mode", "form_post")]);
    let (fields, cookies) = running.sign_in_page(url).await;
    let response = running.login(&fields, &[("account", "ada")], &cookies).await;
    let page = response.text().await.unwrap();
    let field = |name: &str| {
        let found = regex::Regex::new(&format!(r#"name="{name}" value="([^"]*)""#)).unwrap();
        found.captures(&page).map(|c| c[1].to_owned()).unwrap_or_default()
    };
    assert!(page.contains(&format!("action=\"{CALLBACK}\"")), "{page}");
    assert_eq!(field("state"), "st&amp;te");
    let claims = running.verify(&json!(field("id_token")), &running.shop).await.unwrap();
    let digest = Sha256::digest(field("code"));
    assert_eq!(claims.text("c_hash").unwrap(), URL_SAFE_NO_PAD.encode(&digest[..16]));
    running.redeem(&field("code")).await;
    running.stop().await;
}

#[tokio::test]
async fn refresh_tokens_and_secrets_survive_a_restart_and_keys_rotate_with_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let before = start(dir.path(), vec![]).await;
    let (code, session) = before.code("ada").await;
    let tokens = before.redeem(&code).await;
    let secret = before.secret.clone();
    before.handle.rotate_keys().await.unwrap();
    before.stop().await;

    let running = start(dir.path(), vec![]).await;
    assert_eq!(running.secret, secret);
    running.verify(&tokens["id_token"], &running.shop).await.expect("the old key is still published");
    let refresh = |token: &Value, client: &str, secret: &str| {
        let pairs = [
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", client.to_owned()),
            ("client_secret", secret.to_owned()),
            ("refresh_token", token.as_str().unwrap().to_owned()),
        ];
        pairs.into_iter().filter(|(_, v)| !v.is_empty()).collect::<Vec<_>>()
    };
    let form = refresh(&tokens["refresh_token"], &running.shop, &secret);
    let form: Vec<(&str, &str)> = form.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let fresh = running.token(&form).await;
    assert_ne!(fresh["refresh_token"], tokens["refresh_token"]);
    running.verify(&fresh["id_token"], &running.shop).await.unwrap();
    let foreign = refresh(&tokens["refresh_token"], AZURE_CLI, "");
    let foreign: Vec<(&str, &str)> = foreign.iter().map(|(k, v)| (*k, v.as_str())).collect();
    assert_eq!(running.refused(&foreign).await, (70000, "invalid_grant".into()));
    let again = running.browser.get(running.authorize_url(&[])).header(header::COOKIE, session);
    assert!(answer(&again.send().await.unwrap()).contains_key("code"), "the browser is still signed in");
    running.stop().await;
}

#[tokio::test]
async fn daemons_authenticate_and_get_their_roles() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    let scope = format!("api://{}/.default", running.shop);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", running.shop.as_str()),
        ("client_secret", &running.secret),
        ("scope", &scope),
    ];
    let token = running.token(&form).await;
    assert_eq!(token.get("refresh_token"), None);
    let claims = running.verify(&token["access_token"], &running.shop).await.unwrap();
    assert_eq!(claims.roles(), ["Shop.Job"]);
    assert_eq!((claims.oid(), claims.azp()), (Some(claims.sub()), Some(running.shop.as_str())));
    let basic = running.http.post(format!("{AUTHORITY}/oauth2/v2.0/token"));
    let basic = basic.basic_auth(&running.shop, Some(&running.secret)).form(&[form[0], form[3]]).send().await.unwrap();
    assert_eq!(basic.status(), StatusCode::OK);
    let v1 = [form[0], form[1], form[2], ("resource", "https://containerregistry.azure.net")];
    let (status, v1) = running.post("/oauth2/token", &v1).await;
    assert_eq!((status, &v1["expires_in"]), (StatusCode::OK, &json!("3599")));
    assert_eq!(unverified(&v1["access_token"])["aud"], "https://containerregistry.azure.net");
    let delegated = [form[0], form[1], form[2], ("scope", "User.Read")];
    assert_eq!(running.refused(&delegated).await, (1002012, "invalid_scope".into()));
    let get = running.http.get(format!("{AUTHORITY}/oauth2/v2.0/token")).send().await.unwrap();
    assert_eq!(get.json::<Value>().await.unwrap()["error_codes"], json!([900561]));
    let twice = format!("client_id=a&client_id=b&grant_type=client_credentials&scope={scope}");
    let twice = running.http.post(format!("{AUTHORITY}/oauth2/v2.0/token")).body(twice).send().await.unwrap();
    assert_eq!(twice.json::<Value>().await.unwrap()["error_codes"], json!([9002313]));
    running.stop().await;
}

#[tokio::test]
async fn a_device_waits_until_its_user_decides() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    let scope = format!("{AKS}/.default offline_access");
    let (_, device) = running.post("/oauth2/v2.0/devicecode", &[("client_id", AZURE_CLI), ("scope", &scope)]).await;
    assert!(device["message"].as_str().unwrap().contains(device["user_code"].as_str().unwrap()));
    let poll = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", AZURE_CLI),
        ("device_code", device["device_code"].as_str().unwrap()),
    ];
    assert_eq!(running.refused(&poll).await, (70016, "authorization_pending".into()));
    let page = running.browser.get(device["verification_uri_complete"].as_str().unwrap()).send().await.unwrap();
    let jar = cookies(&page);
    let canary = regex::Regex::new(r#"name="canary" value="([^"]*)""#).unwrap();
    let canary = canary.captures(&page.text().await.unwrap()).unwrap()[1].to_owned();
    let user_code = device["user_code"].as_str().unwrap().to_owned();
    let fields = [("canary".to_owned(), canary), ("user_code".to_owned(), user_code)];
    let declined = running.login(&fields, &[("cancel", "1")], &jar).await;
    assert_eq!(declined.status(), StatusCode::OK);
    assert_eq!(running.refused(&poll).await, (65004, "authorization_declined".into()));
    let again = running.login(&fields, &[("account", "ada")], &jar).await;
    assert_eq!(again.status(), StatusCode::BAD_REQUEST, "what is declined stays declined");
    running.stop().await;
}

#[tokio::test]
async fn only_single_page_applications_may_ask_from_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), vec![]).await;
    let preflight = async |origin: &str| {
        let url = format!("{AUTHORITY}/oauth2/v2.0/token");
        let request = running.http.request(reqwest::Method::OPTIONS, url).header(header::ORIGIN, origin);
        request.send().await.unwrap().headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
    };
    assert_eq!(preflight("https://spa.example").await.unwrap(), "https://spa.example");
    assert_eq!(preflight("https://shop.example").await, None);
    running.stop().await;
}

#[tokio::test]
async fn msal_for_python_signs_in_by_every_flow() {
    let dir = tempfile::tempdir().unwrap();
    let key = rsa_identity(dir.path());
    let running = start(dir.path(), vec![key.clone()]).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/identity_msal.py");
    let output = tokio::process::Command::new(crate::support::python())
        .arg(script)
        .arg(dir.path().join("pki/ca.crt"))
        .args([&running.port.to_string(), TENANT, &running.shop, &running.secret])
        .args([dir.path().join("key.pem"), dir.path().join("cert.pem")])
        .kill_on_drop(true)
        .output()
        .await
        .expect("python3 is missing: run `aksim doctor --fix`");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!stderr.contains("No module named"), "Python's msal is missing: run `aksim doctor --fix`\n{stderr}");
    assert!(output.status.success(), "{stderr}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    let daemon = running.verify(&result["client_credentials"]["token"], &running.shop).await.unwrap();
    assert_eq!((daemon.roles(), daemon.text("azpacr")), (vec!["Shop.Job"], Some("1")));
    assert_eq!(result["client_credentials"]["refused"], json!([7000215]));
    let certificate = running.verify(&result["certificate"], &running.shop).await.unwrap();
    assert_eq!(certificate.text("azpacr"), Some("2"));
    for token in ["token", "refreshed"] {
        let claims = running.verify(&result["authorization_code"][token], AKS).await.unwrap();
        assert_eq!(claims.groups(), [running.ids.group("shop-admins").to_string()]);
        assert_eq!((claims.scp(), claims.azp()), (vec!["user.read"], Some(AZURE_CLI)));
    }
    assert_eq!(result["authorization_code"]["account"], "olga@contoso.onmicrosoft.com");
    let device = running.verify(&result["device_code"], AKS).await.unwrap();
    assert_eq!(device.oid(), Some(running.ids.user("ada").to_string().as_str()));
    assert_eq!(result["graph"], "olga@contoso.onmicrosoft.com");
    running.stop().await;
}

/// An RSA key and its self-signed certificate in `dir`; the certificate.
fn rsa_identity(dir: &Path) -> String {
    use rsa::pkcs8::EncodePrivateKey;
    let private = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    let pem = private.to_pkcs8_pem(rsa::pkcs8::LineEnding::LF).unwrap();
    let pair = rcgen::KeyPair::from_pem(&pem).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap().pem();
    std::fs::write(dir.join("key.pem"), pem.as_bytes()).unwrap();
    std::fs::write(dir.join("cert.pem"), &certificate).unwrap();
    certificate
}
