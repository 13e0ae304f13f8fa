//! The UDP relay over real sockets on loopback, without Python.

#![allow(clippy::unwrap_used)]

mod addresses;
mod associate;
mod basics;
mod bounds;
mod change;
mod names;
mod relay;
#[allow(dead_code)]
#[path = "../../src/resolve/tests/server.rs"]
mod server;
mod trains;
