//! TLS on either leg, with peers of ours and foreign ones.

#![allow(clippy::unwrap_used)]

mod certificates;
mod foreign;
mod material;
mod peer;
mod plans;
mod refusals;
mod relaying;
#[path = "../support/mod.rs"]
mod support;
