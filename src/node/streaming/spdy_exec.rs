//! exec and attach over SPDY: a stream each for error, stdin, stdout, stderr and resize.

use super::{
    remote_command::{Output, TerminalSize, Wire},
    spdy::{Connection, Stream, StreamReader, StreamWriter},
};
use bytes::Bytes;
use std::{collections::HashMap, time::Duration};
use tokio::sync::mpsc;

/// Versions of the protocol in order of preference (`X-Stream-Protocol-Version`).
pub const PROTOCOLS: [&str; 3] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];
/// How long a client may take to open its streams.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// Streams that a client is going to open.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Its input.
    pub stdin: bool,
    /// The process's output.
    pub stdout: bool,
    /// The process's error output; not with a terminal.
    pub stderr: bool,
    /// Sizes of its terminal.
    pub resize: bool,
}

/// The streams of one session, all open.
pub struct Streams {
    by_type: HashMap<String, Stream>,
    structured: bool,
}

/// Waits for the streams; `None` when they do not come in time.
pub async fn accept(connection: &mut Connection, expected: Expected, protocol: &str) -> Option<Streams> {
    let Expected { stdin, stdout, stderr, resize } = expected;
    // Version 2 knows no resize.
    let resize = resize && protocol != PROTOCOLS[2];
    let count = 1 + [stdin, stdout, stderr, resize].into_iter().filter(|wanted| *wanted).count();
    let mut by_type = HashMap::new();
    let all = async {
        while by_type.len() < count {
            let stream = connection.accept().await?;
            let kind = stream.header("streamtype").unwrap_or_default().to_owned();
            by_type.insert(kind, stream);
        }
        Some(())
    };
    tokio::time::timeout(OPEN_DEADLINE, all).await.ok().flatten()?;
    Some(Streams { by_type, structured: protocol == PROTOCOLS[0] })
}

/// Carries a session over the streams until either side ends.
pub async fn carry(mut streams: Streams, wire: Wire) {
    let Wire { stdin, resize, mut output } = wire;
    let mut split = |name: &str| streams.by_type.remove(name).map(|s| (s.reader, s.writer)).unzip();
    let (_error_reader, error): (Option<StreamReader>, Option<StreamWriter>) = split("error");
    let (input, input_writer) = split("stdin");
    let (_stdout_reader, stdout) = split("stdout");
    let (_stderr_reader, stderr) = split("stderr");
    let (sizes, _sizes_writer) = split("resize");
    let Some(error) = error else { return };
    let gone = error.clone();
    let incoming = async {
        tokio::join!(feed(input, stdin), follow_sizes(sizes, resize));
        std::future::pending::<()>().await;
    };
    let outgoing = async {
        while let Some(chunk) = output.recv().await {
            match chunk {
                Output::Stdout(data) => send(stdout.as_ref(), data).await,
                Output::Stderr(data) => send(stderr.as_ref(), data).await,
                Output::Status(status) => {
                    let failed = status["status"] != "Success";
                    let text = match streams.structured {
                        true => status.to_string(),
                        false if failed => status["message"].as_str().unwrap_or_default().to_owned(),
                        false => String::new(),
                    };
                    error.write(text.into()).await;
                    break;
                }
            }
        }
        for writer in [stdout.as_ref(), stderr.as_ref(), input_writer.as_ref(), Some(&error)].into_iter().flatten() {
            writer.finish().await;
        }
    };
    tokio::select! {
        () = incoming => {}
        () = outgoing => {}
        () = gone.closed() => {}
    }
}

async fn send(writer: Option<&StreamWriter>, data: Bytes) {
    if let Some(writer) = writer {
        // A connection that is gone is seen by the session itself.
        writer.write(data).await;
    }
}

async fn feed(reader: Option<StreamReader>, stdin: mpsc::Sender<Bytes>) {
    let Some(mut reader) = reader else { return };
    while let Some(data) = reader.read().await {
        if stdin.send(data).await.is_err() {
            return;
        }
    }
}

async fn follow_sizes(reader: Option<StreamReader>, resize: mpsc::Sender<TerminalSize>) {
    let Some(mut reader) = reader else { return };
    while let Some(data) = reader.read().await {
        for size in serde_json::Deserializer::from_slice(&data).into_iter::<TerminalSize>().flatten() {
            // A full queue drops a size; a newer one follows while a window is dragged.
            let _ = resize.try_send(size);
        }
    }
}
