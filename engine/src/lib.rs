//! The native engine of qanat: moves bytes and packets, decides nothing.
//!
//! `py/` is the border to Python; nothing else imports pyo3.

pub mod abilities;
pub mod balance;
pub mod binding;
pub mod desk;
pub mod engine;
pub mod error;
pub mod first_words;
pub mod flow;
pub mod http;
pub mod net;
pub mod plan;
pub mod relay;
pub mod resolve;
pub mod runtime;
pub mod shared;
mod stats;
pub mod transport;

#[cfg(feature = "python")]
mod py;
