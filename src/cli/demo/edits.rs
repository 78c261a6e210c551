//! Saves files of the running shop and waits until what was saved is served.

use super::{Evidence, Shop, browser::Browser};
use aksim_model::{
    journey::{Journey, JourneyOutcome},
    world::World,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long a save may take to be served; compiling included.
const DEADLINE: Duration = Duration::from_secs(180);

/// A stylesheet, copied into running containers.
pub async fn stylesheet(shop: &Shop) -> Evidence {
    let marker = format!("/* saved {} */", Timestamp::now().as_millisecond());
    let file = shop.config.root.join("web/static/style.css");
    let before = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let begun = Timestamp::now();
    std::fs::write(&file, format!("{before}{marker}\n")).map_err(|e| e.to_string())?;
    let journey = ended(shop, "web", begun).await;
    let page = Browser::new(shop)?.open("shop.localhost", "/static/style.css").await;
    std::fs::write(&file, before).map_err(|e| e.to_string())?;
    let (journey, page) = (journey?, page?);
    if !page.text.contains(&marker) {
        return Err(format!("{} does not have the new line", page.url));
    }
    Ok(format!("{} has it; {}", page.url, legs(&journey)))
}

/// A source file of the catalog: compiled, packaged, pushed, rolled out.
pub async fn source(shop: &Shop) -> Evidence {
    let version = format!("demo-{}", Timestamp::now().as_millisecond());
    let file = shop.config.root.join("catalog/src/main.rs");
    let before = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let after = before.replacen("version: env!(\"CARGO_PKG_VERSION\")", &format!("version: \"{version}\""), 1);
    if after == before {
        return Err(format!("{} has no version to change", file.display()));
    }
    let begun = Timestamp::now();
    std::fs::write(&file, after).map_err(|e| e.to_string())?;
    let journey = ended(shop, "catalog", begun).await;
    let served = served_version(shop).await;
    std::fs::write(&file, before).map_err(|e| e.to_string())?;
    let (journey, served) = (journey?, served?);
    if served != version {
        return Err(format!("catalog still serves version {served}"));
    }
    Ok(format!("catalog serves {version}; {}", legs(&journey)))
}

/// The version a pod of the catalog tells, asked through the API server's port-forward.
pub async fn served_version(shop: &Shop) -> Result<String, String> {
    use k8s_openapi::api::core::v1::Pod;
    use kube::{Api, ResourceExt, api::ListParams};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let api: Api<Pod> = Api::default_namespaced(shop.client.clone());
    let selector = ListParams::default().labels("app.kubernetes.io/name=catalog");
    let pods = api.list(&selector).await.map_err(|e| e.to_string())?;
    let alive = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    let newest = alive.max_by_key(|p| p.metadata.creation_timestamp.clone()).ok_or("catalog has no pod")?;
    let mut forward = api.portforward(&newest.name_any(), &[8080]).await.map_err(|e| e.to_string())?;
    let mut stream = forward.take_stream(8080).ok_or("no stream for port 8080")?;
    let request = b"GET /version HTTP/1.0\r\nHost: catalog\r\n\r\n";
    stream.write_all(request).await.map_err(|e| e.to_string())?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer))
        .await
        .map_err(|_| "catalog did not answer within 10 s")?
        .map_err(|e| e.to_string())?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(body).map_err(|e| format!("{e}: {answer}"))?;
    Ok(json["version"].as_str().unwrap_or_default().to_owned())
}

/// Waits for the journey of a service that began after `begun` to end well.
async fn ended(shop: &Shop, service: &str, begun: Timestamp) -> Result<Journey, String> {
    let (sender, mut receiver) = watch::channel(Arc::new(World::default()));
    // Times of files may be a little before the clock's.
    let since = begun.as_millisecond() - 20;
    let wait = receiver.wait_for(|world| find(world, service, since).is_some());
    let world = tokio::select! {
        followed = shop.control.follow(&sender) => return Err(format!("events ended: {followed:?}")),
        found = tokio::time::timeout(DEADLINE, wait) => {
            found.map_err(|_| format!("{service} did not change within {} s", DEADLINE.as_secs()))?
                .map_err(|e| e.to_string())?.clone()
        }
    };
    let journey = find(&world, service, since).ok_or("the journey is gone")?;
    match &journey.outcome {
        Some(JourneyOutcome::Served) => Ok(journey.clone()),
        Some(other) => Err(format!("{other:?}")),
        None => Err("the journey has not ended".into()),
    }
}

fn find<'w>(world: &'w World, service: &str, since: i64) -> Option<&'w Journey> {
    world
        .journeys
        .iter()
        .rev()
        .find(|j| j.service.as_str() == service && j.started.as_millisecond() >= since && j.outcome.is_some())
}

pub fn legs(journey: &Journey) -> String {
    let legs: Vec<String> = journey.legs().iter().map(|(hop, ms)| format!("{} +{ms}", hop.name())).collect();
    format!("{} ms: {}", journey.total_ms(), legs.join(", "))
}
