//! Processes of steps in containers of the job.

use super::{JobContainers, needs::ContainerName};
use crate::{
    agent::process::{ProcessError, Source, follow, read_output},
    logging::mask::SecretMasker,
};
use aksim_cluster::provider::Intervention;
use aksim_runtime::files::{PRIVATE, write_atomic};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{Api, api::AttachParams};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// Marks the processes of one step, so that they are found and ended.
const MARK: &str = "AKSIM_STEP_PROCESS";
/// Reads the environment, which may hold secrets and so is in a file of the agent and not on the command line, goes to
/// the folder, and becomes the program.
const LAUNCH: &str = r#"file="$1"; cd "$2" || exit 126; shift 2; . "$file" && rm -f "$file" && exec "$@""#;
/// Bytes of output in flight each way.
const BUFFER: usize = 64 << 10;

/// What to start in a container.
pub struct ContainerProcess {
    /// Program, found in the container's `PATH`.
    pub program: PathBuf,
    /// Arguments; no shell reads them.
    pub arguments: Vec<String>,
    /// Working folder.
    pub folder: PathBuf,
    /// Added to the container's own environment; `PATH` is put before the container's.
    pub environment: BTreeMap<String, String>,
    /// Where the environment may lie for a moment: a folder that the container sees too.
    pub temp: PathBuf,
}

impl JobContainers {
    /// Runs a process in a container to its end; every line goes to `on_line`. On cancellation its processes get SIGINT,
    /// then SIGTERM, then SIGKILL.
    ///
    /// # Errors
    /// [`ProcessError`]; a bad exit status is none.
    pub async fn run(
        &self,
        name: &ContainerName,
        process: ContainerProcess,
        masker: &Arc<SecretMasker>,
        cancel: &CancellationToken,
        on_line: impl FnMut(Source, &str) + Send,
    ) -> Result<ExitStatus, ProcessError> {
        if cancel.is_cancelled() {
            return Err(ProcessError::Cancelled);
        }
        let failed = |source: io::Error| ProcessError::Start {
            program: process.program.clone(),
            folder: process.folder.clone(),
            source,
        };
        let mark = format!("{MARK}={}", uuid::Uuid::new_v4());
        let file = process.temp.join(format!("{}.environment", uuid::Uuid::new_v4()));
        let text = environment(&process.environment, &mark).map_err(|e| failed(io::Error::other(e)))?;
        write_atomic(&file, text.as_bytes(), PRIVATE).map_err(&failed)?;
        let command = command(&process, &file);
        let streams = AttachParams::default().stdout(true).stderr(true).stdin(false);
        let params = streams.max_stdout_buf_size(BUFFER).max_stderr_buf_size(BUFFER);
        let api: Api<Pod> = Api::namespaced(self.streaming.clone(), &self.namespace);
        let pod = name.pod_name();
        let attached = tokio::select! {
            () = cancel.cancelled() => Err(ProcessError::Cancelled),
            attached = api.exec(&pod, command, &params) => attached.map_err(|e| failed(io::Error::other(e))),
        };
        let mut attached = attached.inspect_err(|_| drop(std::fs::remove_file(&file)))?;
        // Held to the end: the readers live as long as the set.
        let (_readers, mut lines) = read_output(attached.stdout(), attached.stderr(), masker);
        let wait = |source| ProcessError::Wait { program: process.program.clone(), source };
        let Some(ending) = attached.take_status() else {
            return Err(wait(io::Error::other("it has no status")));
        };
        let send = |kind| self.signal(&mark, kind);
        let status = follow(ending, &mut lines, on_line, cancel, send).await.ok_or(ProcessError::Cancelled)?;
        let status = status.ok_or_else(|| wait(io::Error::other("the container is gone")))?;
        exit_code(&status).map(|code| ExitStatus::from_raw(code << 8)).ok_or_else(|| {
            failed(io::Error::other(status.message.unwrap_or_else(|| "the container did not run it".into())))
        })
    }

    /// Sends a signal to the processes of a step.
    async fn signal(&self, mark: &str, signal: Signal) {
        let intervention = Intervention::Signal { mark: mark.to_owned(), signal };
        if let Err(error) = self.provider.intervene(intervention).await {
            // The step ends all the same; what runs on goes with the namespace.
            tracing::warn!(%error, %signal, "the processes of a step were not reached");
        }
    }
}

fn command(process: &ContainerProcess, file: &Path) -> Vec<String> {
    let path = |p: &Path| p.display().to_string();
    let first = ["/bin/sh".into(), "-c".into(), LAUNCH.into(), "sh".into(), path(file), path(&process.folder)];
    first.into_iter().chain([path(&process.program)]).chain(process.arguments.iter().cloned()).collect()
}

/// What the launching shell reads: the program's words after `env` with its variables, quoted by a library for shells.
fn environment(variables: &BTreeMap<String, String>, mark: &str) -> Result<String, shlex::QuoteError> {
    let mut words = vec!["env".to_owned(), mark.to_owned()];
    words.extend(variables.iter().filter(|(k, _)| *k != "PATH").map(|(k, v)| format!("{k}={v}")));
    let words = shlex::try_join(words.iter().map(String::as_str))?;
    let path = match variables.get("PATH") {
        Some(path) => format!("PATH={}:\"$PATH\"; export PATH\n", shlex::try_quote(path)?),
        None => String::new(),
    };
    Ok(format!("{path}set -- {words} \"$@\"\n"))
}

/// The exit code in a status of `exec`, as `kubectl` reads it.
fn exit_code(status: &Status) -> Option<i32> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode"))?.message.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A real shell reads it, whatever the values hold.
    #[test]
    fn the_environment_reaches_the_program_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let odd = "a'b \"$(touch hacked)\" `id`\n\\ $HOME; exit 3 #";
        let run = |program: &str, arguments: &[&str]| {
            let variables = [("PLAIN", "1"), ("ODD", odd), ("WITH-DASH", "x"), ("PATH", "/first dir")];
            let process = ContainerProcess {
                program: program.into(),
                arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
                folder: folder.path().to_owned(),
                environment: variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                temp: folder.path().to_owned(),
            };
            let file = folder.path().join("e");
            std::fs::write(&file, environment(&process.environment, "MARK=1").unwrap()).unwrap();
            let words = command(&process, &file);
            let output = std::process::Command::new(&words[0]).args(&words[1..]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(!file.exists(), "nothing of it stays");
            String::from_utf8(output.stdout).unwrap()
        };
        let shown = run("sh", &["-c", r#"printf '%s|%s|%s|%s' "$PLAIN" "$ODD" "${PATH%%:*}" "$1""#, "sh", odd]);
        assert_eq!(shown, format!("1|{odd}|/first dir|{odd}"));
        assert!(run("env", &[]).lines().any(|l| l == "WITH-DASH=x"), "names that a shell has no variables for");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn exit_codes_are_in_the_cause() {
        let status = |json: serde_json::Value| exit_code(&serde_json::from_value(json).unwrap());
        assert_eq!(status(serde_json::json!({"status": "Success"})), Some(0));
        let failed = serde_json::json!({"status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
        assert_eq!(status(failed), Some(7));
        assert_eq!(status(serde_json::json!({"status": "Failure", "message": "no such container"})), None);
    }
}
