mod containers;
mod database;
mod identity;
mod images;
mod registry;
