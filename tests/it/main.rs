mod containers;
mod controllers;
mod database;
mod identity;
mod images;
mod registry;
