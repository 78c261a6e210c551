//! Asks a pod over its network whether it answers.

use aksim_runtime::net::SharedDialer;
use std::{io, net::SocketAddr, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long connecting may take, and then an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much is read of what may be the first line of an answer.
const HEAD: usize = 4096;
/// How every answer in HTTP/1 begins.
const HTTP: &[u8] = b"HTTP/";

/// What to ask of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The pod's name.
    pub pod: String,
    /// Where its Services lead to, the most telling first.
    pub addresses: Vec<SocketAddr>,
    /// Path of the request.
    pub path: String,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An answer in HTTP.
    Http {
        /// For a person.
        detail: String,
    },
    /// The connection was accepted, and no HTTP came back: another protocol, or one in which the client speaks first.
    Connected {
        /// Pod that was asked.
        pod: String,
        /// For a person.
        detail: String,
    },
    /// Nobody accepts a connection.
    Refused {
        /// For a person.
        detail: String,
    },
}

impl Question {
    /// Asks each address until one answers in HTTP; the best of the answers.
    pub async fn ask(self, dialer: &SharedDialer) -> Answer {
        let mut best = None;
        for address in &self.addresses {
            let answer = match first_line(dialer, *address, &self.path).await {
                Ok(Line::Http(status)) => {
                    return Answer::Http { detail: format!("{status} from {} {}", self.pod, self.path) };
                }
                Ok(Line::Other(what)) => Answer::Connected {
                    pod: self.pod.clone(),
                    detail: format!("{} at {address}: connected, no HTTP answer ({what})", self.pod),
                },
                Err(error) => Answer::Refused { detail: format!("pod {} at {address}: {error}", self.pod) },
            };
            if best.is_none() || matches!(answer, Answer::Connected { .. }) {
                best = Some(answer);
            }
        }
        best.unwrap_or_else(|| Answer::Refused { detail: format!("pod {} has no port to ask", self.pod) })
    }
}

enum Line {
    /// The status code.
    Http(u16),
    /// Why it is no line of HTTP.
    Other(&'static str),
}

/// One HTTP/1.0 request; what the answer begins with. An error when there is no connection.
async fn first_line(dialer: &SharedDialer, address: SocketAddr, path: &str) -> io::Result<Line> {
    let connecting = tokio::time::timeout(PATIENCE, dialer.dial(address));
    let mut stream = connecting.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection"))??;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: aksim\r\nConnection: close\r\n\r\n");
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        let (mut head, mut buffer) = (Vec::new(), [0u8; 256]);
        while !head.contains(&b'\n') && head.len() < HEAD && may_be_http(&head) {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => head.extend_from_slice(&buffer[..read]),
            }
        }
        io::Result::Ok(head)
    };
    Ok(match tokio::time::timeout(PATIENCE, exchange).await {
        Err(_) => Line::Other("nothing within 2 s"),
        // A server that does not like what it read may reset the connection.
        Ok(Err(_)) => Line::Other("closed"),
        Ok(Ok(head)) if head.is_empty() => Line::Other("closed"),
        Ok(Ok(head)) => status(&head).map_or(Line::Other("another protocol"), Line::Http),
    })
}

fn may_be_http(head: &[u8]) -> bool {
    let length = head.len().min(HTTP.len());
    head[..length] == HTTP[..length]
}

fn status(head: &[u8]) -> Option<u16> {
    let line = String::from_utf8_lossy(head.strip_prefix(HTTP)?).into_owned();
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aksim_runtime::net::DirectDialer;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    /// Asks a server that sends `says` to whoever connects, then closes or keeps the connection.
    async fn answer(says: &'static [u8], closes: bool) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let question = question(listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says).await.unwrap();
            let mut request = [0u8; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            if !closes {
                std::future::pending::<()>().await;
            }
        };
        let dialer: SharedDialer = Arc::new(DirectDialer);
        let (serving, asking) = (std::pin::pin!(serve), std::pin::pin!(question.ask(&dialer)));
        match futures::future::select(asking, serving).await {
            futures::future::Either::Left((answer, _)) => answer,
            futures::future::Either::Right(((), asking)) => asking.await,
        }
    }

    fn question(address: SocketAddr) -> Question {
        Question { pod: "web-1".into(), addresses: vec![address], path: "/live".into() }
    }

    #[tokio::test]
    async fn any_status_of_http_is_an_answer() {
        for (says, code) in [(&b"HTTP/1.1 200 OK\r\n\r\n"[..], "200"), (b"HTTP/1.0 503 No\r\n", "503")] {
            assert_eq!(answer(says, true).await, Answer::Http { detail: format!("{code} from web-1 /live") });
        }
    }

    #[tokio::test]
    async fn what_speaks_otherwise_is_connected_to() {
        // A server that closes (gRPC), one that speaks first (MySQL, TLS alert), one that waits for its client.
        for (says, closes, why) in [
            (&b""[..], true, "closed"),
            (b"J\0\0\0\n8.4.0", false, "another protocol"),
            (b"\x15\x03\x01\x00\x02", true, "another protocol"),
            (b"", false, "nothing within 2 s"),
        ] {
            let Answer::Connected { pod, detail } = answer(says, closes).await else { panic!("{why}") };
            assert_eq!(pod, "web-1");
            assert!(detail.ends_with(&format!("connected, no HTTP answer ({why})")), "{detail}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_no_answer_but_another_port_may_have_one() {
        let dialer: SharedDialer = Arc::new(DirectDialer);
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(question(closed).ask(&dialer).await, Answer::Refused { .. }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let two = Question { addresses: vec![closed, listener.local_addr().unwrap()], ..question(closed) };
        let (answer, _) = tokio::join!(two.ask(&dialer), async { drop(listener.accept().await.unwrap()) });
        assert!(matches!(answer, Answer::Connected { .. }), "{answer:?}");
    }
}
