//! `aksim exec`.

use super::{
    args::ExecArgs,
    context::Context,
    failure::{Code, Failure},
};
use aksim_cluster::templates::SERVICE_LABEL;
use aksim_model::pod::is_ready;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{AttachParams, ListParams},
};
use std::io::IsTerminal;

/// Runs a program in a container of the service, standard streams connected.
pub async fn run(context: &Context, args: ExecArgs) -> Result<(), Failure> {
    let client = context.kubernetes().await?;
    let api: Api<Pod> = Api::all(client.clone());
    let selector = format!("{SERVICE_LABEL}={}", args.service);
    let pods = api.list(&ListParams::default().labels(&selector)).await?;
    let alive = || pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    let pod = alive().find(|p| is_ready(p)).or_else(|| alive().next()).ok_or_else(|| {
        Failure::new(Code::Failure, format!("service {:?} has no pod", args.service)).hint("see `aksim status`")
    })?;
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let interactive = !std::io::stdin().is_terminal();
    let parameters = AttachParams::default().stdin(interactive).stdout(true).stderr(true);
    let mut process = api.exec(&pod.name_any(), args.command, &parameters).await?;
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let status = process.take_status();
    let forward_in = async {
        if let Some(mut stdin) = stdin {
            // The process may end before it has read everything.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
        }
        std::future::pending::<()>().await;
    };
    let forward_out = async {
        let out = async {
            match stdout {
                Some(mut s) => tokio::io::copy(&mut s, &mut tokio::io::stdout()).await,
                None => Ok(0),
            }
        };
        let err = async {
            match stderr {
                Some(mut s) => tokio::io::copy(&mut s, &mut tokio::io::stderr()).await,
                None => Ok(0),
            }
        };
        tokio::try_join!(out, err)
    };
    tokio::select! {
        () = forward_in => {}
        copied = forward_out => { copied?; }
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    match status {
        Some(status) if status.status.as_deref() != Some("Success") => {
            Err(Failure::new(Code::Failure, status.message.unwrap_or_else(|| "the program failed".into())))
        }
        _ => Ok(()),
    }
}
