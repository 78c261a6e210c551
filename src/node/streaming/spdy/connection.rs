//! A connection whose streams the client opens.

use super::frame::{Codec, Frame, FrameError, Headers};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use std::collections::HashMap;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_util::codec::{FramedRead, FramedWrite};

/// Frames waiting in a stream; a slow reader holds up the connection beyond that.
const QUEUE: usize = 16;
/// Streams open at once; port-forward opens two a connection.
const MAX_STREAMS: usize = 2048;
/// Largest data frame written.
const CHUNK: usize = 64 * 1024;
/// RST_STREAM status: the stream was refused.
const REFUSED: u32 = 3;
/// RST_STREAM status: the stream is not wanted any more.
const CANCEL: u32 = 5;

/// A stream that the client opened. It is accepted by now.
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What it was opened with.
    pub headers: Headers,
    /// From the client.
    pub reader: StreamReader,
    /// To the client.
    pub writer: StreamWriter,
}

impl Stream {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What the client sends on a stream.
pub struct StreamReader(mpsc::Receiver<Bytes>);

impl StreamReader {
    /// The next bytes; `None` when the client has ended the stream.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// What goes to the client on a stream.
#[derive(Clone)]
pub struct StreamWriter {
    id: u32,
    frames: mpsc::Sender<Frame>,
}

impl StreamWriter {
    /// Sends bytes; false when the connection is gone.
    pub async fn write(&self, mut data: Bytes) -> bool {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK));
            let frame = Frame::Data { stream: self.id, data: chunk, fin: false };
            if self.frames.send(frame).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Says that nothing more follows.
    pub async fn finish(&self) {
        // A connection that is gone needs no end of stream.
        let _ = self.frames.send(Frame::Data { stream: self.id, data: Bytes::new(), fin: true }).await;
    }

    /// Gives the stream up both ways.
    pub async fn reset(&self) {
        let _ = self.frames.send(Frame::RstStream { stream: self.id, status: CANCEL }).await;
    }

    /// Waits until the connection is gone.
    pub async fn closed(&self) {
        self.frames.closed().await;
    }
}

/// The streams of a connection as they are opened.
pub struct Connection {
    streams: mpsc::Receiver<Stream>,
}

impl Connection {
    /// The next stream; `None` when the connection is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

/// A connection over `io`, and the future that drives it; it ends with the connection, or once
/// the [`Connection`] and all its writers are dropped.
pub fn connection<I>(io: I) -> (Connection, impl Future<Output = Result<(), FrameError>> + Send)
where
    I: AsyncRead + AsyncWrite + Send + 'static,
{
    let (opened, streams) = mpsc::channel(QUEUE);
    (Connection { streams }, drive(io, opened))
}

async fn drive<I>(io: I, opened: mpsc::Sender<Stream>) -> Result<(), FrameError>
where
    I: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let (frames, mut outgoing) = mpsc::channel(QUEUE);
    let writing = async move {
        let mut sink = FramedWrite::new(write, Codec::default());
        while let Some(frame) = outgoing.recv().await {
            sink.feed(frame).await?;
            // What waits goes out with it.
            while let Ok(frame) = outgoing.try_recv() {
                sink.feed(frame).await?;
            }
            sink.flush().await?;
        }
        sink.close().await
    };
    let reading = incoming(FramedRead::new(read, Codec::default()), opened, frames);
    let mut writing = std::pin::pin!(writing);
    tokio::select! {
        written = &mut writing => written,
        read = reading => {
            // The client sends no more; what we still have to say is said.
            read?;
            writing.await
        }
    }
}

/// What is known of a stream.
struct Open {
    data: Option<mpsc::Sender<Bytes>>,
}

async fn incoming<R: AsyncRead + Unpin>(
    mut source: FramedRead<R, Codec>,
    opened: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Frame>,
) -> Result<(), FrameError> {
    let mut open: HashMap<u32, Open> = HashMap::new();
    // Writers keep the connection's other way alive; we need a handle only while we answer.
    let frames_weak = frames.downgrade();
    let mut held = Some(frames);
    loop {
        let frame = tokio::select! {
            frame = source.next() => frame,
            // Nobody takes streams any more: the connection lives as long as its writers.
            () = opened.closed(), if held.is_some() => {
                held = None;
                continue;
            }
        };
        let Some(frame) = frame.transpose()? else { return Ok(()) };
        match frame {
            Frame::SynStream { stream, headers, fin } => {
                let Some(frames) = frames_weak.upgrade() else { return Ok(()) };
                open.retain(|_, o| o.data.as_ref().is_some_and(|d| !d.is_closed()));
                if open.len() >= MAX_STREAMS || open.contains_key(&stream) || stream == 0 {
                    send(&frames, Frame::RstStream { stream, status: REFUSED }).await?;
                    continue;
                }
                send(&frames, Frame::SynReply { stream, headers: vec![], fin: false }).await?;
                let (data, reader) = mpsc::channel(QUEUE);
                open.insert(stream, Open { data: (!fin).then_some(data) });
                let writer = StreamWriter { id: stream, frames };
                let stream = Stream { id: stream, headers, reader: StreamReader(reader), writer };
                if opened.send(stream).await.is_err() {
                    held = None;
                }
            }
            Frame::Data { stream, data, fin } => {
                let Some(known) = open.get_mut(&stream) else { continue };
                if let Some(sender) = known.data.as_ref().filter(|_| !data.is_empty()) {
                    // A reader that is gone does not want it.
                    let _ = sender.send(data).await;
                }
                if fin {
                    known.data = None;
                }
            }
            Frame::Headers { stream, fin: true, .. } | Frame::RstStream { stream, .. } => {
                open.remove(&stream);
            }
            Frame::Ping(id) => {
                let Some(frames) = frames_weak.upgrade() else { return Ok(()) };
                // Ours would be even, and we send none.
                if id % 2 == 1 {
                    send(&frames, Frame::Ping(id)).await?;
                }
            }
            Frame::GoAway { .. } | Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Ignored => {}
        }
    }
}

async fn send(frames: &mpsc::Sender<Frame>, frame: Frame) -> Result<(), FrameError> {
    frames.send(frame).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_carry_bytes_both_ways() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (mut connection, driver) = connection(server);
        let served = async {
            let mut stream = connection.accept().await.unwrap();
            assert_eq!(stream.header("streamtype"), Some("data"));
            while let Some(data) = stream.reader.read().await {
                assert!(stream.writer.write(data).await);
            }
            stream.writer.finish().await;
        };
        let asked = async {
            let (read, write) = tokio::io::split(client);
            let mut sink = FramedWrite::new(write, Codec::default());
            let mut source = FramedRead::new(read, Codec::default());
            let headers = vec![("streamtype".to_owned(), "data".to_owned())];
            sink.send(Frame::SynStream { stream: 1, headers, fin: false }).await.unwrap();
            sink.send(Frame::Ping(1)).await.unwrap();
            sink.send(Frame::Data { stream: 1, data: Bytes::from(vec![7u8; 100_000]), fin: true }).await.unwrap();
            let (mut got, mut replied, mut pinged) = (0, false, false);
            loop {
                match source.next().await.unwrap().unwrap() {
                    Frame::SynReply { stream: 1, .. } => replied = true,
                    Frame::Ping(1) => pinged = true,
                    Frame::Data { data, fin, .. } => {
                        got += data.len();
                        if fin {
                            break;
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(replied && pinged);
            got
        };
        let work = async { tokio::join!(asked, served).0 };
        tokio::select! {
            got = work => assert_eq!(got, 100_000),
            ended = driver => panic!("{ended:?}"),
        }
    }

    #[tokio::test]
    async fn garbage_ends_the_connection() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (_connection, driver) = connection(server);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        drop(client);
        // "GET " reads as a data frame of a stream that is not open; then the input ends.
        let _ = driver.await;
    }
}
