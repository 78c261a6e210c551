mod containers;
mod identity;
mod registry;
