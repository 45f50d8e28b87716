//! The registry: golden scripts, and random histories.

mod properties;
mod script;
