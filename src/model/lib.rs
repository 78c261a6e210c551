//! Nouns shared by two modules or more. No I/O here.

pub mod advice;
pub mod command;
pub mod cron;
pub mod endpoint;
pub mod event;
pub mod ids;
pub mod image_ref;
pub mod journey;
pub mod log;
pub mod pipeline;
pub mod pod;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod suggest;
pub mod world;
