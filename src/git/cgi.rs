//! The head of a CGI program's answer (RFC 3875 §6.2-6.3).

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Largest head, bytes.
const MAX_HEAD: u64 = 16 << 10;

/// Status and headers.
#[derive(Debug)]
pub(super) struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// Reads the head; the body follows in `stream`.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is not a head; errors of reading.
pub(super) async fn read_head(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Head> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = Head { status: StatusCode::OK, headers: HeaderMap::new() };
    let mut limited = stream.take(MAX_HEAD);
    loop {
        let mut line = String::new();
        limited.read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Err(invalid("the program ended within its head"));
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(head);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header has no colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<u16>().ok());
            let status = code.and_then(|code| StatusCode::from_u16(code).ok());
            head.status = status.ok_or_else(|| invalid("the status is no number"))?;
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("a header's name is invalid"))?;
        let value = HeaderValue::from_str(value).map_err(|_| invalid("a header's value is invalid"))?;
        head.headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn heads_are_read_and_bounded() {
        let mut text = b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nbody".as_slice();
        let head = read_head(&mut text).await.unwrap();
        assert_eq!((head.status, head.headers.len()), (StatusCode::NOT_FOUND, 1));
        assert_eq!(text, b"body");
        let long = format!("X: {}\r\n\r\n", "a".repeat(20_000));
        for bad in ["", "Content-Type: a\r\n", "no colon\r\n\r\n", "Status: x\r\n\r\n", &long] {
            assert!(read_head(&mut bad.as_bytes()).await.is_err(), "{bad:.20}");
        }
    }
}
