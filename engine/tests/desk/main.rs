//! Legs that the owner holds, and flows that it begins.

#![allow(clippy::unwrap_used)]

mod exchanges;
mod flows;
mod legs;
mod office;
#[path = "../support/mod.rs"]
mod support;
