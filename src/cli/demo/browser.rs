//! As much of a browser as the demo's users need: cookies, redirects, forms.

use super::Shop;
use aksim_runtime::pki::Pki;
use regex::Regex;
use reqwest::{Client, Response, redirect::Policy};
use std::{net::SocketAddr, sync::LazyLock, time::Duration};
use url::Url;

/// How long a page may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A page as it came.
pub struct Page {
    /// Where it came from, after redirects.
    pub url: Url,
    /// HTTP status.
    pub status: u16,
    /// Its text.
    pub text: String,
}

/// A browser with cookies of its own.
pub struct Browser {
    client: Client,
    port: u16,
}

static FORM: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(?s)<form([^>]*)>(.*?)</form>"#));
static FIELD: LazyLock<Regex> = LazyLock::new(|| pattern(r"<(?:input|button)\b([^>]*)>"));
static ATTRIBUTE: LazyLock<Regex> = LazyLock::new(|| pattern(r#"([a-z-]+)="([^"]*)""#));

fn pattern(text: &str) -> Regex {
    #[allow(clippy::expect_used)]
    Regex::new(text).expect("the patterns of this file are valid")
}

impl Browser {
    /// A browser that trusts the environment's CA and finds every `*.localhost` at the ingress.
    pub fn new(shop: &Shop) -> Result<Self, String> {
        let port = shop.port("ingress")?;
        let pki = Pki::open(&shop.home.pki(), "aksim CA").map_err(|e| e.to_string())?;
        let tls = pki.client_config(None).map_err(|e| e.to_string())?;
        let ingress = SocketAddr::from(([127, 0, 0, 1], port));
        let hosts = ["shop.localhost", "admin.shop.localhost", "login.microsoftonline.com.localhost"];
        let builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(DEADLINE)
            .cookie_store(true)
            .redirect(Policy::limited(10));
        let builder = hosts.iter().fold(builder, |b, host| b.resolve(host, ingress));
        Ok(Self { client: builder.build().map_err(|e| e.to_string())?, port })
    }

    /// Opens a page of a host of the ingress.
    pub async fn open(&self, host: &str, path: &str) -> Result<Page, String> {
        let url = format!("https://{host}:{}{path}", self.port);
        page(self.client.get(url).send().await).await
    }

    /// Fills in the form that has the field `marker` and submits it. `values` win over what it holds.
    pub async fn submit(&self, on: &Page, marker: &str, values: &[(&str, &str)]) -> Result<Page, String> {
        let (action, mut fields) =
            form(&on.text, marker).ok_or_else(|| format!("{} has no form with {marker}", on.url))?;
        for (name, value) in values {
            fields.retain(|(n, _)| n != name);
            fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        let target = on.url.join(&action).map_err(|e| e.to_string())?;
        page(self.client.post(target).form(&fields).send().await).await
    }
}

async fn page(sent: Result<Response, reqwest::Error>) -> Result<Page, String> {
    let response = sent.map_err(|e| chain(&e))?;
    let (url, status) = (response.url().clone(), response.status().as_u16());
    let text = response.text().await.map_err(|e| chain(&e))?;
    Ok(Page { url, status, text })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Action and fields of the first form that has a field named `marker`; buttons are left out.
fn form(text: &str, marker: &str) -> Option<(String, Vec<(String, String)>)> {
    FORM.captures_iter(text).find_map(|found| {
        let action = attribute(&found[1], "action").unwrap_or_default();
        let fields: Vec<(String, String)> = FIELD
            .captures_iter(&found[2])
            .filter(|field| field[0].starts_with("<input"))
            .filter_map(|field| {
                Some((attribute(&field[1], "name")?, attribute(&field[1], "value").unwrap_or_default()))
            })
            .collect();
        fields.iter().any(|(name, _)| name == marker).then_some((action, fields))
    })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let found = ATTRIBUTE.captures_iter(tag).find(|a| &a[1] == name)?;
    Some(unescaped(&found[2]))
}

fn unescaped(text: &str) -> String {
    let entities = [("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&lt;", "<"), ("&gt;", ">")];
    let text = entities.iter().fold(text.to_owned(), |t, (entity, character)| t.replace(entity, character));
    text.replace("&amp;", "&").replace("&#38;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_with_the_field_is_found() {
        let text = r#"<form action="/search"><input name="q" value=""></form>
            <form method="post" action="/login?a=1&amp;b=2"><input type="hidden" name="canary" value="x&#39;y"><input name="login"><button name="cancel" value="1">C</button></form>"#;
        let (action, fields) = form(text, "login").unwrap();
        assert_eq!(action, "/login?a=1&b=2");
        assert_eq!(fields, [("canary".to_owned(), "x'y".to_owned()), ("login".to_owned(), String::new())]);
    }
}
