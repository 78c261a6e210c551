//! Rows 3 to 8 of the mirrored data flow, each with evidence from the server that holds it.

use super::{
    Evidence, Shop,
    browser::{Browser, Page},
};
use aksim_identity::DEVELOPMENT_PASSWORD;
use aksim_runtime::{net::azure_http_client, pki::Pki};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use kube::{Api, ResourceExt, api::ListParams};
use mysql_async::prelude::Queryable;
use serde_json::Value;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Row 3: every service's image is in the registry, by the digest that its manifest has there.
pub async fn images(shop: &Shop) -> Evidence {
    let registry = shop.endpoint("registry")?;
    let pki = Pki::open(&shop.home.pki(), "aksim CA").map_err(text)?;
    let http = azure_http_client(&pki, &[]).map_err(text)?;
    let password = std::fs::read_to_string(shop.home.component("registry").join("admin-password")).map_err(text)?;
    let mut found = Vec::new();
    for service in &shop.config.services {
        let running = shop.world.services.get(&service.name).and_then(|s| s.serving.clone());
        let tag = running.ok_or_else(|| format!("{} is not serving", service.name))?;
        let url = registry.join(&format!("/v2/{}/manifests/{tag}", service.image.repository)).map_err(text)?;
        let accept = "application/vnd.oci.image.manifest.v1+json";
        let request = http.head(url).basic_auth(&shop.config.registry, Some(&password)).header("accept", accept);
        let response = request.send().await.map_err(text)?;
        let digest = response.headers().get("docker-content-digest").and_then(|d| d.to_str().ok());
        let digest = digest.ok_or_else(|| format!("{}:{tag}: HTTP {}", service.image.repository, response.status()))?;
        found.push(format!("{}@{}", service.name, &digest[..digest.len().min(19)]));
    }
    Ok(found.join(" "))
}

/// Row 4: Deployments are available and their pods run on nodes.
pub async fn workloads(shop: &Shop) -> Evidence {
    let deployments: Api<Deployment> = Api::default_namespaced(shop.client.clone());
    let mut found = Vec::new();
    for deployment in deployments.list(&ListParams::default()).await.map_err(text)? {
        let status = deployment.status.clone().unwrap_or_default();
        let (ready, wanted) = (status.ready_replicas.unwrap_or(0), status.replicas.unwrap_or(0));
        if ready == 0 || ready != wanted {
            return Err(format!("deployment {} has {ready} of {wanted} ready", deployment.name_any()));
        }
        found.push(format!("{} {ready}/{wanted}", deployment.name_any()));
    }
    if found.len() < shop.config.services.len() {
        return Err(format!("only {} deployments", found.len()));
    }
    let pods: Api<Pod> = Api::default_namespaced(shop.client.clone());
    let pods = pods.list(&ListParams::default()).await.map_err(text)?;
    let node = pods.iter().find_map(|p| p.spec.as_ref()?.node_name.clone()).ok_or("no pod is on a node")?;
    Ok(format!("{}; {} pods on {node}", found.join(", "), pods.items.len()))
}

/// Row 5: the website answers through the ingress, with products out of the database.
pub async fn website(shop: &Shop) -> Evidence {
    let page = Browser::new(shop)?.open("shop.localhost", "/").await?;
    let products = page.text.matches("name=\"product_id\"").count();
    if page.status != 200 || products == 0 {
        return Err(format!("{} answered {} with {products} products", page.url, page.status));
    }
    Ok(format!("{} answered 200 with {products} products", page.url))
}

/// Row 6: claims of an access token for the shop's API.
pub async fn token(shop: &Shop) -> Evidence {
    let issuer = shop.port("identity")?;
    let pki = Pki::open(&shop.home.pki(), "aksim CA").map_err(text)?;
    let host = "login.microsoftonline.com";
    let name = aksim_model::endpoint::AzureName {
        host: host.into(),
        port: 443,
        target: std::net::SocketAddr::from(([127, 0, 0, 1], issuer)),
    };
    let http = azure_http_client(&pki, &[name]).map_err(text)?;
    let tenant = format!("{}.onmicrosoft.com", shop.config.tenant);
    let user = format!("olga@{tenant}");
    let form = [
        ("grant_type", "password"),
        ("client_id", "04b07795-8ddb-461a-bbee-02f9e1bf7b46"),
        ("scope", "api://shop/.default"),
        ("username", &user),
        ("password", DEVELOPMENT_PASSWORD),
    ];
    let request = http.post(format!("https://{host}/{tenant}/oauth2/v2.0/token")).form(&form);
    let answer: Value = request.send().await.map_err(text)?.json().await.map_err(text)?;
    let token = answer["access_token"].as_str().ok_or_else(|| answer["error_description"].to_string())?;
    let payload = token.split('.').nth(1).ok_or("the token is no JWT")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).map_err(text)?).map_err(text)?;
    for claim in ["tid", "oid", "preferred_username", "roles", "scp", "ver"] {
        if claims[claim].is_null() {
            return Err(format!("the token has no claim {claim}"));
        }
    }
    Ok(format!(
        "iss={} preferred_username={} roles={} ver={}",
        claims["iss"], claims["preferred_username"], claims["roles"], claims["ver"]
    )
    .replace('"', ""))
}

/// Row 6: signs in through the pages, as a browser does.
pub async fn sign_in(browser: &mut Browser, host: &str, user: &str) -> Evidence {
    let page = signed_in(browser, host, user).await?;
    if page.status != 200 || page.url.host_str() != Some(host) {
        return Err(format!("ended at {} with {}", page.url, page.status));
    }
    let shown = page.text.contains(&format!("{user}@"));
    if shown {
        Ok(format!("{} shows {user}'s account", page.url))
    } else {
        Err(format!("{} does not show {user}", page.url))
    }
}

async fn signed_in(browser: &Browser, host: &str, user: &str) -> Result<Page, String> {
    let form = browser.open(host, "/auth/sign-in").await?;
    if form.status != 200 {
        return Err(format!("{} answered {}: {}", form.url, form.status, first_line(&form.text)));
    }
    browser.submit(&form, "passwd", &[("login", user_name(user).as_str()), ("passwd", DEVELOPMENT_PASSWORD)]).await
}

fn user_name(user: &str) -> String {
    format!("{user}@contoso.onmicrosoft.com")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Row 7: places an order and reads it from the database server over TLS.
pub async fn order(shop: &Shop, ada: &mut Browser) -> Evidence {
    let front = ada.open("shop.localhost", "/").await?;
    let cart = ada.submit(&front, "product_id", &[]).await?;
    let cart = if cart.text.contains("request_id") { cart } else { ada.open("shop.localhost", "/cart").await? };
    let placed = ada.submit(&cart, "request_id", &[]).await?;
    if placed.status != 200 {
        return Err(format!("{} answered {}: {}", placed.url, placed.status, first_line(&placed.text)));
    }
    let row = newest_order(shop).await?;
    Ok(format!("orders has {row}"))
}

/// Number of orders and the newest one, read as the service's own user.
async fn newest_order(shop: &Shop) -> Result<String, String> {
    let secrets: Api<Secret> = Api::default_namespaced(shop.client.clone());
    let secret = secrets.get("orders-database").await.map_err(text)?;
    let value = |key: &str| {
        let data = secret.data.as_ref().and_then(|d| d.get(key)).map(|v| String::from_utf8_lossy(&v.0).into_owned());
        data.ok_or_else(|| format!("secret orders-database has no {key}"))
    };
    let tls = mysql_async::SslOpts::default()
        .with_root_certs(vec![shop.home.pki().join("ca.crt").into()])
        .with_danger_tls_hostname_override(Some(value("host")?));
    let options = mysql_async::OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(shop.port("database")?)
        .user(Some(value("username")?))
        .pass(Some(value("password")?))
        .db_name(Some(value("database")?))
        .ssl_opts(tls);
    let mut connection = mysql_async::Conn::new(options).await.map_err(text)?;
    let cipher: Option<(String, String)> =
        connection.query_first("SHOW SESSION STATUS LIKE 'Ssl_version'").await.map_err(text)?;
    let count: Option<u64> = connection.query_first("SELECT COUNT(*) FROM orders").await.map_err(text)?;
    connection.disconnect().await.map_err(text)?;
    match count {
        Some(count) if count > 0 => {
            Ok(format!("{count} row(s), read over {}", cipher.map_or_else(String::new, |c| c.1)))
        }
        _ => Err("the table orders is empty".into()),
    }
}

/// Row 8: the admin portal refuses who has not the role.
pub async fn refused(ada: &mut Browser) -> Evidence {
    let form = ada.open("admin.shop.localhost", "/auth/sign-in").await?;
    // The issuer knows ada's browser by now; it may not ask again.
    let page = match form.text.contains("name=\"passwd\"") {
        true => ada.submit(&form, "passwd", &[("login", &user_name("ada")), ("passwd", DEVELOPMENT_PASSWORD)]).await?,
        false => form,
    };
    let page = if page.status == 200 { ada.open("admin.shop.localhost", "/").await? } else { page };
    if page.status == 403 {
        Ok(format!("{} answered 403", page.url))
    } else {
        Err(format!("{} answered {}", page.url, page.status))
    }
}

/// Row 8: the administrator sees the order.
pub async fn admin(shop: &Shop) -> Evidence {
    let olga = Browser::new(shop)?;
    let page = signed_in(&olga, "admin.shop.localhost", "olga").await?;
    if page.status != 200 {
        return Err(format!("{} answered {}: {}", page.url, page.status, first_line(&page.text)));
    }
    let orders = olga.open("admin.shop.localhost", "/orders").await?;
    if orders.status == 200 && orders.text.contains("ada@") {
        Ok(format!("{} shows ada's order", orders.url))
    } else {
        Err(format!("{} answered {} without ada's order", orders.url, orders.status))
    }
}
