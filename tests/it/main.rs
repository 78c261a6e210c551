mod containers;
mod database;
mod identity;
mod registry;
