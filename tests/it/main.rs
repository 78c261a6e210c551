mod identity;
mod registry;
