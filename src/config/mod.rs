//! `aksim.toml` and the paths aksim uses.

pub mod home;
