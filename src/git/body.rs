//! A request's body on its way into a program: counted, unpacked, never waited for too long.

use super::program::ChildGroup;
use axum::body::Body;
use flate2::write::GzDecoder;
use http_body_util::BodyExt;
use std::{
    io::{self, Write},
    time::Duration,
};
use tokio::{io::AsyncWriteExt, process::ChildStdin};

/// How long a client may be silent in the middle of a request.
const IDLE: Duration = Duration::from_secs(60);
/// Compressed bytes that are unpacked at a time; at most a thousand times as much comes out.
const SLICE: usize = 4 << 10;

/// Why a body could not be passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// It is larger than is allowed, unpacked.
    #[error("the request is larger than {0} bytes")]
    TooLarge(u64),
    /// It is not the gzip it says it is.
    #[error("the request is not valid gzip: {0}")]
    Gzip(#[source] io::Error),
    /// The connection broke.
    #[error("the client went away: {0}")]
    Client(#[source] axum::Error),
    /// The client sends nothing.
    #[error("the client sent nothing for {} s", IDLE.as_secs())]
    Idle,
}

/// Passes a body to a program's input and closes that. A program that stops reading does not
/// stop the rest from being taken off the connection, so that it can be answered.
///
/// # Errors
/// [`BodyError`]; the program should then be ended.
pub(super) async fn feed(mut body: Body, gzip: bool, limit: u64, stdin: ChildStdin) -> Result<(), BodyError> {
    let mut sink = Sink { stdin: Some(stdin), left: limit, limit };
    let mut decoder = gzip.then(|| GzDecoder::new(Vec::new()));
    loop {
        let frame = match tokio::time::timeout(IDLE, body.frame()).await {
            Err(_) => return Err(BodyError::Idle),
            Ok(None) => break,
            Ok(Some(frame)) => frame.map_err(BodyError::Client)?,
        };
        let Ok(data) = frame.into_data() else { continue };
        let Some(decoder) = &mut decoder else {
            sink.write(&data).await?;
            continue;
        };
        for slice in data.chunks(SLICE) {
            decoder.write_all(slice).map_err(BodyError::Gzip)?;
            let unpacked = std::mem::take(decoder.get_mut());
            sink.write(&unpacked).await?;
        }
    }
    if let Some(decoder) = decoder {
        let rest = decoder.finish().map_err(BodyError::Gzip)?;
        sink.write(&rest).await?;
    }
    Ok(())
}

struct Sink {
    stdin: Option<ChildStdin>,
    left: u64,
    limit: u64,
}

impl Sink {
    async fn write(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.left = self.left.checked_sub(data.len() as u64).ok_or(BodyError::TooLarge(self.limit))?;
        if let Some(stdin) = &mut self.stdin
            && stdin.write_all(data).await.is_err()
        {
            self.stdin = None;
        }
        Ok(())
    }
}

/// A program whose input comes from a request, with what it says.
pub(super) struct Fed {
    pub child: ChildGroup,
    pub stdout: tokio::process::ChildStdout,
    pub stderr: tokio::process::ChildStderr,
    pub stdin: ChildStdin,
}

impl Fed {
    /// Starts it.
    pub(super) fn spawn(command: &mut tokio::process::Command) -> io::Result<Self> {
        command.stdin(std::process::Stdio::piped());
        let mut child = ChildGroup::spawn(command)?;
        let (stdin, stdout, stderr) = child.pipes()?;
        Ok(Self { child, stdout, stderr, stdin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use tokio::process::Command;

    async fn fed(body: Vec<u8>, gzip: bool, limit: u64) -> Result<Vec<u8>, BodyError> {
        let mut command = Command::new("cat");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).process_group(0);
        let Fed { mut child, stdout, stderr: _stderr, stdin } = Fed::spawn(&mut command).unwrap();
        let read = async {
            let mut stdout = stdout;
            let mut output = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut output).await.unwrap();
            output
        };
        let (fed, output) = tokio::join!(feed(Body::from(body), gzip, limit, stdin), read);
        child.wait().await.unwrap();
        fed.map(|()| output)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn bodies_are_unpacked_and_limited() {
        let data = vec![7; 100_000];
        assert_eq!(fed(data.clone(), false, 100_000).await.unwrap(), data);
        assert_eq!(fed(gzip(&data), true, 100_000).await.unwrap(), data);
        assert!(matches!(fed(data.clone(), false, 99_999).await, Err(BodyError::TooLarge(_))));
        // A few hundred bytes that would become many.
        assert!(matches!(fed(gzip(&data), true, 99_999).await, Err(BodyError::TooLarge(_))));
        assert!(matches!(fed(data, true, 1 << 20).await, Err(BodyError::Gzip(_))));
    }
}
