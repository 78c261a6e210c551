//! Streams of exec, attach and port-forward: the channel protocol over WebSockets, and SPDY/3.1.

pub mod port_forward;
pub mod port_forward_channels;
pub mod remote_command;
pub mod spdy;
pub mod spdy_exec;
pub mod websocket;
