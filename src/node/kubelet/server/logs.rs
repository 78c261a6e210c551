//! Container logs: reading CRI's format, following it across rotation until the container ends.

use super::{Api, ContainerPath, Refusal, find, flag, query};
use crate::runtime::{ContainerState, ContainerStatus, NodeRuntime, RuntimeEvent};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use notify::{RecursiveMode, Watcher};
use std::{
    io::{self, SeekFrom},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::{Notify, broadcast},
};

const BLOCK: usize = 32 * 1024;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<u64>,
    since: Option<jiff::Timestamp>,
    limit: Option<u64>,
    stream: Option<&'static str>,
}

impl Options {
    fn parse(query: &[(String, String)]) -> Result<Self, Refusal> {
        let bad = |name: &str| Refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("invalid value of {name}"));
        let value = |name: &str| query.iter().find(|(k, v)| k == name && !v.is_empty()).map(|(_, v)| v.as_str());
        let number = |name: &str| value(name).map(|v| v.parse::<u64>().map_err(|_| bad(name))).transpose();
        let since = match (number("sinceSeconds")?, value("sinceTime")) {
            (Some(seconds), _) => {
                let seconds = i64::try_from(seconds).map_err(|_| bad("sinceSeconds"))?;
                let now = jiff::Timestamp::now();
                Some(now.checked_sub(jiff::SignedDuration::from_secs(seconds)).map_err(|_| bad("sinceSeconds"))?)
            }
            (None, Some(time)) => Some(time.parse().map_err(|_| bad("sinceTime"))?),
            (None, None) => None,
        };
        Ok(Self {
            follow: flag(query, "follow"),
            previous: flag(query, "previous"),
            timestamps: flag(query, "timestamps"),
            tail: number("tailLines")?,
            since,
            limit: number("limitBytes")?,
            stream: match value("stream") {
                Some("Stdout") => Some("stdout"),
                Some("Stderr") => Some("stderr"),
                _ => None,
            },
        })
    }
}

pub(super) async fn logs(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): ContainerPath,
    request: Request,
) -> Result<Response, Refusal> {
    let options = Options::parse(&query(&request))?;
    let view = find(&api, &namespace, &pod)?;
    let bad = |message: String| Refusal(StatusCode::BAD_REQUEST, message);
    let Some(found) = view.containers.get(&container) else {
        return Err(bad(format!("container {container} is not valid for pod {pod}")));
    };
    let wanted = match (options.previous, &found.current, &found.waiting) {
        (true, Some(current), Some(_)) if matches!(current.state, ContainerState::Exited { .. }) => Some(current),
        (true, ..) => found.previous.as_ref(),
        (false, current, _) => current.as_ref(),
    };
    let Some(status) = wanted.cloned() else {
        return Err(bad(match (options.previous, &found.waiting) {
            (true, _) => format!("previous terminated container \"{container}\" in pod \"{pod}\" not found"),
            (false, waiting) => {
                let why = waiting.as_deref().unwrap_or("ContainerCreating");
                let verb =
                    if why.contains("Image") || why.contains("Err") { "trying and failing to pull image" } else { why };
                match verb == why {
                    true => format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}"),
                    false => format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {verb}"),
                }
            }
        }));
    };
    let reader = LogReader::open(api.shared.runtime.clone(), status, options)
        .await
        .map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to open log file: {e}")))?;
    let stream = futures::stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next().await.transpose()?;
        Some((chunk, reader))
    });
    Response::builder()
        .header("content-type", "text/plain")
        .body(Body::from_stream(stream))
        .map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

struct LogReader {
    runtime: Arc<dyn NodeRuntime>,
    container: ContainerStatus,
    options: Options,
    file: File,
    inode: u64,
    /// Bytes of a line whose end is not there yet.
    rest: Vec<u8>,
    /// Bytes that may still be sent.
    left: Option<u64>,
    follow: Option<Follow>,
    ended: bool,
}

struct Follow {
    written: Arc<Notify>,
    events: broadcast::Receiver<RuntimeEvent>,
    _watcher: notify::RecommendedWatcher,
}

impl LogReader {
    async fn open(runtime: Arc<dyn NodeRuntime>, container: ContainerStatus, options: Options) -> io::Result<Self> {
        let path = &container.log_path;
        // Watching begins before the first look, so that nothing is missed in between.
        let follow = match options.follow && !options.previous {
            true => Some(Follow::new(&runtime, path)?),
            false => None,
        };
        let mut file = File::open(path).await?;
        let inode = file.metadata().await?.ino();
        if let Some(lines) = options.tail {
            let start = tail_start(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        let left = options.limit;
        Ok(Self { runtime, container, options, file, inode, rest: Vec::new(), left, follow, ended: false })
    }

    /// The next lines; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut block = vec![0u8; BLOCK];
        loop {
            if self.ended || self.left == Some(0) {
                return Ok(None);
            }
            // Asked before reading: what was written before the end is then read for sure.
            let over = match &self.follow {
                Some(_) => !self.runs().await,
                None => true,
            };
            let read = self.file.read(&mut block).await?;
            if read > 0 {
                self.rest.extend_from_slice(&block[..read]);
                let text = self.take_lines();
                if !text.is_empty() {
                    return Ok(Some(text));
                }
                continue;
            }
            if self.rotated().await? {
                continue;
            }
            if over {
                self.ended = true;
                continue;
            }
            if let Some(follow) = &mut self.follow {
                follow.wait().await;
            }
        }
    }

    async fn runs(&self) -> bool {
        let sandbox = self.runtime.sandbox(&self.container.sandbox).await.ok().flatten();
        sandbox.is_some_and(|s| {
            let own = s.containers.iter().find(|c| c.id == self.container.id);
            own.is_some_and(|c| !matches!(c.state, ContainerState::Exited { .. }))
        })
    }

    /// Goes on with the new file when the one read so far was renamed.
    async fn rotated(&mut self) -> io::Result<bool> {
        if self.follow.is_none() {
            return Ok(false);
        }
        match File::open(&self.container.log_path).await {
            Ok(file) => {
                let inode = file.metadata().await?.ino();
                let fresh = inode != self.inode;
                if fresh {
                    self.file = file;
                    self.inode = inode;
                }
                Ok(fresh)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn take_lines(&mut self) -> Bytes {
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Bytes::new() };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        let mut text = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|b| *b == b'\n') {
            format_line(line, &self.options, &mut text);
        }
        if let Some(left) = &mut self.left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            text.truncate(most);
            *left -= text.len() as u64;
        }
        text.into()
    }
}

impl Follow {
    fn new(runtime: &Arc<dyn NodeRuntime>, path: &std::path::Path) -> io::Result<Self> {
        let written = Arc::new(Notify::new());
        let teller = written.clone();
        let mut watcher = notify::recommended_watcher(move |_| teller.notify_one()).map_err(io::Error::other)?;
        let folder: PathBuf = path.parent().map_or_else(PathBuf::new, ToOwned::to_owned);
        watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
        Ok(Self { written, events: runtime.events(), _watcher: watcher })
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.written.notified() => {}
            event = self.events.recv() => if matches!(event, Err(broadcast::error::RecvError::Closed)) {
                self.written.notified().await;
            },
        }
    }
}

/// One line of CRI's format, `TIME STREAM TAG TEXT\n`, as the client wants it. A line that is not
/// of this format is passed on as it is.
fn format_line(line: &[u8], options: &Options, out: &mut Vec<u8>) {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (Some(time), Some(stream), Some(tag), Some(text)) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        out.extend_from_slice(line);
        return;
    };
    let at = || std::str::from_utf8(time).ok()?.parse::<jiff::Timestamp>().ok();
    if let Some(since) = options.since
        && at().is_some_and(|at| at < since)
    {
        return;
    }
    if options.stream.is_some_and(|wanted| wanted.as_bytes() != stream) {
        return;
    }
    if options.timestamps {
        out.extend_from_slice(time);
        out.push(b' ');
    }
    // `P` is a part of a longer line: it goes on without a break.
    let partial = tag.first() == Some(&b'P');
    let text = if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    out.extend_from_slice(text);
}

/// Offset of the last `lines` lines.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata().await?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut position = length;
    let mut seen = 0;
    let mut block = vec![0u8; BLOCK];
    while position > 0 {
        let size = position.min(BLOCK as u64);
        position -= size;
        file.seek(SeekFrom::Start(position)).await?;
        let chunk = &mut block[..usize::try_from(size).unwrap_or(BLOCK)];
        file.read_exact(chunk).await?;
        for (index, _) in chunk.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let after = position + index as u64 + 1;
            // The last line's own end does not count.
            if after == length {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(after);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINES: &str = "2026-01-01T00:00:01.000000001Z stdout F one\n\
                         2026-01-01T00:00:02.000000001Z stdout P tw\n\
                         2026-01-01T00:00:03.000000001Z stdout F o\n\
                         2026-01-01T00:00:04.000000001Z stderr F three\n";

    fn formatted(options: &Options) -> String {
        let mut out = Vec::new();
        LINES.as_bytes().split_inclusive(|b| *b == b'\n').for_each(|l| format_line(l, options, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_prefix_is_stripped_and_parts_are_joined() {
        assert_eq!(formatted(&Options::default()), "one\ntwo\nthree\n");
        let since = Options { since: Some("2026-01-01T00:00:03.5Z".parse().unwrap()), ..Default::default() };
        assert_eq!(formatted(&since), "three\n");
        let times = Options { timestamps: true, since: since.since, ..Default::default() };
        assert_eq!(formatted(&times), "2026-01-01T00:00:04.000000001Z three\n");
    }

    #[tokio::test]
    async fn the_tail_is_found_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let text: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        let mut file = File::open(&path).await.unwrap();
        for lines in [1u64, 2, 5000, 10_000, 20_000] {
            let start = usize::try_from(tail_start(&mut file, lines).await.unwrap()).unwrap();
            let want = usize::try_from(lines.min(10_000)).unwrap();
            assert_eq!(text[start..].lines().count(), want);
        }
        assert_eq!(tail_start(&mut file, 0).await.unwrap(), text.len() as u64);
    }

    proptest! {
        #[test]
        fn any_line_is_taken(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut out = Vec::new();
            format_line(&line, &Options { timestamps: true, since: Some(jiff::Timestamp::UNIX_EPOCH), ..Default::default() }, &mut out);
        }
    }
}
