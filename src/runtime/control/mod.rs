//! The control API: HTTP on a Unix socket of the state folder.
//!
//! | request | answer |
//! | - | - |
//! | `GET /v1/world` | the [`World`](aksim_model::world::World) now, JSON |
//! | `GET /v1/events` | server-sent events: `world` first and after a lag, then each `event` |
//! | `GET /v1/logs?service=&tail=&follow=` | JSON lines of [`LogLine`](aksim_model::log::LogLine) |
//! | `GET /v1/info` | process id, project folder and environment of the running aksim |
//! | `POST /v1/commands` | [`Command`](aksim_model::command::Command) in, [`CommandReply`](aksim_model::command::CommandReply) out |
//!
//! The socket is 0600 in a 0700 folder: whoever can open it is the user who started aksim.

mod client;
mod server;

pub use client::{ControlClient, ControlError};
pub use server::{CommandRequest, ControlServer, LogSource};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who answers at the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Process id of the running aksim.
    pub pid: u32,
    /// Project folder.
    pub project: PathBuf,
    /// Environment's name.
    pub name: String,
    /// Version of the running aksim.
    pub version: String,
}
