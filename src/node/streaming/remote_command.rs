//! exec and attach, apart from the wire: a process's session joined to a client's streams.

use crate::runtime::Session;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

/// How long output may go on after the process has ended: something it left behind may hold it.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);
const BUFFER: usize = 32 * 1024;

/// What goes to the client.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The end, a `metav1.Status`.
    Status(Value),
}

/// Terminal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A client's end of exec or attach, whatever protocol it speaks.
pub struct Peer {
    /// Its standard input; closed at end of file.
    pub stdin: mpsc::Receiver<Bytes>,
    /// Sizes of its terminal.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// To the client; closed when it is gone.
    pub output: mpsc::Sender<Output>,
}

/// What the protocol's side holds of a [`Peer`].
pub struct Wire {
    /// To the process.
    pub stdin: mpsc::Sender<Bytes>,
    /// To the terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// From the process.
    pub output: mpsc::Receiver<Output>,
}

/// Both ends of a session. Queues are short: a slow reader holds up the writer.
pub fn pair() -> (Peer, Wire) {
    let (stdin_sender, stdin) = mpsc::channel(8);
    let (resize_sender, resize) = mpsc::channel(8);
    let (output, output_receiver) = mpsc::channel(8);
    (Peer { stdin, resize, output }, Wire { stdin: stdin_sender, resize: resize_sender, output: output_receiver })
}

/// Joins a session to a client until the process ends or the client goes.
///
/// With `own_process` (exec) a client that goes takes the process with it; attach leaves it.
pub async fn join(session: Session, mut peer: Peer, command: &[String], own_process: bool) {
    let Session { stdin, stdout, stderr, control } = session;
    let output = peer.output.clone();
    let outputs = async {
        tokio::join!(
            pump(stdout, |chunk| output.send(Output::Stdout(chunk))),
            pump(stderr, |chunk| output.send(Output::Stderr(chunk))),
        );
    };
    let mut outputs = std::pin::pin!(outputs);
    let input = async {
        feed(stdin, &mut peer.stdin).await;
        std::future::pending::<()>().await;
    };
    let sizes = async {
        while let Some(size) = peer.resize.recv().await {
            if let Err(error) = control.resize(size.width, size.height).await {
                tracing::debug!(%error, "terminal not resized");
            }
        }
        std::future::pending::<()>().await;
    };
    let ended = async {
        let mut drained = false;
        let mut wait = std::pin::pin!(control.wait());
        let code = loop {
            tokio::select! {
                code = &mut wait => break code,
                () = &mut outputs, if !drained => drained = true,
            }
        };
        if !drained {
            // Late output is lost only if something else keeps the pipe open.
            let _ = tokio::time::timeout(DRAIN_DEADLINE, outputs).await;
        }
        code
    };
    let code = tokio::select! {
        code = ended => code,
        () = peer.output.closed() => {
            if own_process && let Err(error) = control.kill().await {
                tracing::debug!(%error, "process of a client that is gone not killed");
            }
            return;
        }
        () = input => return,
        () = sizes => return,
    };
    let status = match code {
        Ok(0) => success(),
        Ok(code) => exit_status(command, code),
        Err(error) => internal_error(&error.to_string()),
    };
    // A client that is gone does not care.
    let _ = peer.output.send(Output::Status(status)).await;
}

async fn pump<F, Fut, E>(stream: Option<Box<dyn AsyncRead + Send + Unpin>>, send: F)
where
    F: Fn(Bytes) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let Some(mut stream) = stream else { return };
    let mut buffer = BytesMut::with_capacity(BUFFER);
    while let Ok(read) = stream.read_buf(&mut buffer).await {
        if read == 0 || send(buffer.split().freeze()).await.is_err() {
            return;
        }
        buffer.reserve(BUFFER);
    }
}

async fn feed(stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>, chunks: &mut mpsc::Receiver<Bytes>) {
    let Some(mut stdin) = stdin else {
        // Nobody reads it: taken off the wire and dropped.
        while chunks.recv().await.is_some() {}
        return;
    };
    while let Some(chunk) = chunks.recv().await {
        let written = async {
            stdin.write_all(&chunk).await?;
            stdin.flush().await
        };
        if written.await.is_err() {
            while chunks.recv().await.is_some() {}
            return;
        }
    }
    // End of file; a process that closed its input already does not mind.
    let _ = stdin.shutdown().await;
}

/// The status of a process that ended with 0.
pub fn success() -> Value {
    json!({ "metadata": {}, "status": "Success" })
}

/// The status of a process that ended otherwise; clients read the code from the cause.
pub fn exit_status(command: &[String], code: i32) -> Value {
    let message = format!(
        "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
        command.join(" ")
    );
    json!({
        "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] }
    })
}

/// The status of a failure of ours.
pub fn internal_error(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
        "details": { "causes": [{ "message": message }] }, "code": 500
    })
}
