//! Frames and their header blocks.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::{io, sync::LazyLock};
use tokio_util::codec::{Decoder, Encoder};

/// Largest frame taken: clients write 32 KiB at a time, header blocks are far smaller.
const MAX_FRAME: usize = 1024 * 1024;
/// Largest header block when unpacked.
const MAX_HEADERS: usize = 64 * 1024;
const VERSION: u16 = 3;
/// Flag of a stream's last frame.
const FIN: u8 = 0x01;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Words of the preset dictionary, each written with its length before it.
const DICTIONARY_WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// What follows the words.
const DICTIONARY_TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417\
502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May \
Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,\
image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::with_capacity(1423);
    for word in DICTIONARY_WORDS {
        // No word is longer than a few letters.
        bytes.put_u32(u32::try_from(word.len()).unwrap_or(0));
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(DICTIONARY_TAIL.as_bytes());
    bytes
});

/// Names in lower case with their values.
pub type Headers = Vec<(String, String)>;

/// Why a peer's bytes are not SPDY/3.1; the connection ends.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame or header block beyond what is taken.
    #[error("SPDY {0} is too large")]
    TooLarge(&'static str),
    /// A frame that contradicts the specification.
    #[error("malformed SPDY frame: {0}")]
    Malformed(&'static str),
    /// Header blocks that do not unpack.
    #[error("SPDY header compression: {0}")]
    Compression(String),
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A frame; kinds that do not concern us are read over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Its number.
        stream: u32,
        /// Its headers.
        headers: Headers,
        /// The opener will send no data.
        fin: bool,
    },
    /// Accepts a stream.
    SynReply {
        /// Its number.
        stream: u32,
        /// Headers of the answer.
        headers: Headers,
        /// The answerer will send no data.
        fin: bool,
    },
    /// Ends a stream both ways.
    RstStream {
        /// Its number.
        stream: u32,
        /// Why: 1 protocol error, 5 cancel, …
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// Its number.
        stream: u32,
        /// The headers.
        headers: Headers,
        /// Last frame of its sender.
        fin: bool,
    },
    /// Wants the same frame back.
    Ping(u32),
    /// No more streams.
    GoAway {
        /// Last stream that was taken.
        last: u32,
    },
    /// Bytes of a stream.
    Data {
        /// Its number.
        stream: u32,
        /// The bytes.
        data: Bytes,
        /// Last frame of its sender.
        fin: bool,
    },
    /// A frame without meaning here: settings, window update, or an unknown kind.
    Ignored,
}

/// Reads and writes frames; the compression state of either way lives as long as the connection.
pub struct Codec {
    inflate: Decompress,
    deflate: Compress,
    dictionary_sent: bool,
}

impl Default for Codec {
    fn default() -> Self {
        Self {
            inflate: Decompress::new(true),
            deflate: Compress::new(Compression::fast(), true),
            dictionary_sent: false,
        }
    }
}

impl Codec {
    fn unpack(&mut self, packed: &[u8]) -> Result<Headers, FrameError> {
        let mut block = vec![0u8; MAX_HEADERS];
        let (mut read, mut written) = (0, 0);
        let failed = |e: &dyn std::fmt::Display| FrameError::Compression(e.to_string());
        while read < packed.len() {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let outcome = self.inflate.decompress(&packed[read..], &mut block[written..], FlushDecompress::Sync);
            let advance = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
            let (taken, made) =
                (advance(self.inflate.total_in(), before_in), advance(self.inflate.total_out(), before_out));
            read += taken;
            written += made;
            match outcome {
                Ok(Status::Ok | Status::BufError) if written == MAX_HEADERS => {
                    return Err(FrameError::TooLarge("header block"));
                }
                Ok(Status::StreamEnd) => return Err(FrameError::Malformed("the header stream ended")),
                Ok(_) if taken == 0 && made == 0 => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&DICTIONARY).map_err(|e| failed(&e))?;
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        block.truncate(written);
        parse_headers(&block)
    }

    fn pack(&mut self, headers: &Headers) -> Result<Vec<u8>, FrameError> {
        if !self.dictionary_sent {
            let set = self.deflate.set_dictionary(&DICTIONARY);
            set.map_err(|e| FrameError::Compression(e.to_string()))?;
            self.dictionary_sent = true;
        }
        let mut block = Vec::new();
        let length = |n: usize| u32::try_from(n).map_err(|_| FrameError::TooLarge("header block"));
        block.put_u32(length(headers.len())?);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(length(text.len())?);
            block.extend_from_slice(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(block.len() + 128);
        let begun = self.deflate.total_in();
        loop {
            let read = usize::try_from(self.deflate.total_in() - begun).unwrap_or(block.len());
            packed.reserve(128);
            let room = packed.capacity() - packed.len();
            let status = self.deflate.compress_vec(&block[read..], &mut packed, FlushCompress::Sync);
            status.map_err(|e| FrameError::Compression(e.to_string()))?;
            let all = usize::try_from(self.deflate.total_in() - begun).is_ok_and(|n| n == block.len());
            // Room left over means that the flush is complete.
            if all && packed.len() < packed.capacity() && room > 0 {
                return Ok(packed);
            }
        }
    }
}

fn parse_headers(block: &[u8]) -> Result<Headers, FrameError> {
    let mut rest = block;
    let number = |rest: &mut &[u8]| rest.try_get_u32().map_err(|_| FrameError::Malformed("short header block"));
    let count = number(&mut rest)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let mut text = || {
            let length = usize::try_from(number(&mut rest)?).unwrap_or(usize::MAX);
            let bytes = rest.get(..length).ok_or(FrameError::Malformed("short header block"))?;
            rest = &rest[length..];
            String::from_utf8(bytes.to_vec()).map_err(|_| FrameError::Malformed("a header is not UTF-8"))
        };
        let (name, value) = (text()?.to_lowercase(), text()?);
        headers.push((name, value));
    }
    Ok(headers)
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(head) = buffer.get(..8) else { return Ok(None) };
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        if length > MAX_FRAME {
            return Err(FrameError::TooLarge("frame"));
        }
        if buffer.len() < 8 + length {
            buffer.reserve(8 + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(8);
        let body = buffer.split_to(length).freeze();
        let fin = flags & FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: first, data: body, fin }));
        }
        let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
        if version != VERSION {
            return Err(FrameError::Malformed("version other than 3"));
        }
        self.control(kind, fin, body).map(Some)
    }
}

impl Codec {
    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, FrameError> {
        let mut number = || body.try_get_u32().map_err(|_| FrameError::Malformed("short control frame"));
        Ok(match kind {
            SYN_STREAM => {
                let stream = number()? & 0x7fff_ffff;
                number()?;
                // Priority and credential slot.
                body.try_get_u16().map_err(|_| FrameError::Malformed("short SYN_STREAM"))?;
                Frame::SynStream { stream, headers: self.unpack(&body)?, fin }
            }
            SYN_REPLY => {
                let stream = number()? & 0x7fff_ffff;
                Frame::SynReply { stream, headers: self.unpack(&body)?, fin }
            }
            HEADERS => {
                let stream = number()? & 0x7fff_ffff;
                Frame::Headers { stream, headers: self.unpack(&body)?, fin }
            }
            RST_STREAM => Frame::RstStream { stream: number()? & 0x7fff_ffff, status: number()? },
            PING => Frame::Ping(number()?),
            GOAWAY => Frame::GoAway { last: number()? & 0x7fff_ffff },
            _ => Frame::Ignored,
        })
    }
}

fn put_head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) -> Result<(), FrameError> {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, flags, length)
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) -> Result<(), FrameError> {
    let length = u32::try_from(length).ok().filter(|l| *l < 1 << 24).ok_or(FrameError::TooLarge("frame"))?;
    out.put_u32(u32::from(flags) << 24 | length);
    Ok(())
}

impl Encoder<Frame> for Codec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        let flag = |fin: bool| if fin { FIN } else { 0 };
        match frame {
            Frame::SynStream { stream, headers, fin } => {
                let packed = self.pack(&headers)?;
                put_head(out, SYN_STREAM, flag(fin), packed.len() + 10)?;
                out.put_u32(stream);
                out.put_u32(0);
                out.put_u16(0);
                out.extend_from_slice(&packed);
            }
            Frame::SynReply { stream, headers, fin } => {
                let packed = self.pack(&headers)?;
                put_head(out, SYN_REPLY, flag(fin), packed.len() + 4)?;
                out.put_u32(stream);
                out.extend_from_slice(&packed);
            }
            Frame::Headers { stream, headers, fin } => {
                let packed = self.pack(&headers)?;
                put_head(out, HEADERS, flag(fin), packed.len() + 4)?;
                out.put_u32(stream);
                out.extend_from_slice(&packed);
            }
            Frame::RstStream { stream, status } => {
                put_head(out, RST_STREAM, 0, 8)?;
                out.put_u32(stream);
                out.put_u32(status);
            }
            Frame::Ping(id) => {
                put_head(out, PING, 0, 4)?;
                out.put_u32(id);
            }
            Frame::GoAway { last } => {
                put_head(out, GOAWAY, 0, 8)?;
                out.put_u32(last);
                out.put_u32(0);
            }
            Frame::Data { stream, data, fin } => {
                out.put_u32(stream & 0x7fff_ffff);
                put_length(out, flag(fin), data.len())?;
                out.extend_from_slice(&data);
            }
            Frame::Ignored => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_dictionary_is_the_specifications() {
        assert_eq!(DICTIONARY.len(), 1423);
        // The identifier that every SPDY/3 header stream begins with.
        let mut codec = Codec::default();
        let packed = codec.pack(&headers(&[("streamtype", "error")])).unwrap();
        assert_eq!(packed[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn frames_come_back_as_they_went() {
        let (mut writer, mut reader) = (Codec::default(), Codec::default());
        let mut wire = BytesMut::new();
        let long = "x".repeat(5000);
        let frames = [
            Frame::SynStream { stream: 1, headers: headers(&[("streamtype", "error"), ("port", "80")]), fin: false },
            Frame::SynReply { stream: 1, headers: vec![], fin: false },
            Frame::SynStream { stream: 3, headers: headers(&[("streamtype", "data"), ("long", &long)]), fin: true },
            Frame::Data { stream: 3, data: Bytes::from_static(b"abc"), fin: true },
            Frame::Headers { stream: 3, headers: headers(&[("a", "b")]), fin: false },
            Frame::RstStream { stream: 3, status: 5 },
            Frame::Ping(7),
            Frame::GoAway { last: 3 },
        ];
        for frame in &frames {
            writer.encode(frame.clone(), &mut wire).unwrap();
        }
        for frame in &frames {
            assert_eq!(reader.decode(&mut wire).unwrap().as_ref(), Some(frame));
        }
        assert_eq!(reader.decode(&mut wire).unwrap(), None);
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut writer = Codec::default();
        let mut wire = BytesMut::new();
        let bomb = headers(&[("a", &"x".repeat(MAX_HEADERS * 4))]);
        writer.encode(Frame::SynStream { stream: 1, headers: bomb, fin: false }, &mut wire).unwrap();
        assert!(wire.len() < MAX_HEADERS, "it is small on the wire");
        assert!(matches!(Codec::default().decode(&mut wire), Err(FrameError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut codec = Codec::default();
            let mut wire = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = codec.decode(&mut wire) {}
        }

        #[test]
        fn garbage_in_a_header_block_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 1u16..10) {
            let mut wire = BytesMut::new();
            put_head(&mut wire, kind, 0, bytes.len()).unwrap();
            wire.extend_from_slice(&bytes);
            let mut codec = Codec::default();
            while let Ok(Some(_)) = codec.decode(&mut wire) {}
            let _ = parse_headers(&bytes);
        }
    }
}
