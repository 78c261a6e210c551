//! `aksim pipeline logs`.

use super::client::PipelineClient;
use crate::{
    context::Context,
    failure::{Code, Failure},
    output,
};
use aksim_pipelines::{LogLine, first_error};
use futures::StreamExt;
use reqwest::Method;

/// Prints the log of a run.
pub async fn run(context: &Context, id: Option<u64>, go_on: bool) -> Result<(), Failure> {
    let client = PipelineClient::connect(context).await?;
    let id = match id {
        Some(id) => id,
        None => {
            let newest = client.runs().await?.first().map(|r| r.id);
            newest
                .ok_or_else(|| Failure::new(Code::Failure, "no run yet").hint("queue one with `aksim pipeline run`"))?
        }
    };
    match go_on {
        true => follow(&client, id).await,
        false => print(&client, id, false).await,
    }
}

/// Prints the log until the run ends; a run that did not succeed is a failure.
pub async fn follow(client: &PipelineClient, id: u64) -> Result<(), Failure> {
    print(client, id, true).await?;
    let run = client.get(id).await?;
    match run.result {
        Some(result) if result.good() => Ok(()),
        result => {
            let name = result.map_or("has not ended", |r| r.name()).to_lowercase();
            let why = first_error(&run).map(|e| format!(": {e}")).unwrap_or_default();
            Err(Failure::new(Code::Failure, format!("run {id} {name}{why}")).hint(format!("aksim pipeline show {id}")))
        }
    }
}

async fn print(client: &PipelineClient, id: u64, go_on: bool) -> Result<(), Failure> {
    let path = format!("/build/builds/{id}/log?follow={go_on}");
    let answer = client.send(Method::GET, &path, None::<&()>).await?;
    let mut stream = answer.bytes_stream();
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(chunk) = stream.next().await {
        buffer.extend_from_slice(&chunk.map_err(Failure::other)?);
        let Some(end) = buffer.iter().rposition(|b| *b == b'\n') else { continue };
        let rest = buffer.split_off(end + 1);
        let lines = std::mem::replace(&mut buffer, rest);
        let mut text = String::new();
        for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let line: LogLine = serde_json::from_slice(line).map_err(Failure::other)?;
            let at = line.at.strftime("%H:%M:%S%.3f");
            text.push_str(&format!("{at} {}.{} | {}\n", line.stage, line.job, line.line));
        }
        output::text(&text)?;
    }
    Ok(())
}
