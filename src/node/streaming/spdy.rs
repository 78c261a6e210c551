//! SPDY/3.1 as Kubernetes clients speak it for exec, attach and port-forward
//! (draft-mbelshe-httpbis-spdy-00): framing with compressed headers, and a connection whose
//! streams the client opens.
//!
//! Those clients neither send nor heed WINDOW_UPDATE, so neither do we. What bounds memory is a
//! short queue a stream: a slow reader holds up the connection, as it does with the kubelet.

mod connection;
mod frame;

pub use connection::{Connection, Stream, StreamReader, StreamWriter, connection};
pub use frame::{Codec, Frame, FrameError, Headers};

/// Value of the `Upgrade` header.
pub const PROTOCOL: &str = "SPDY/3.1";
