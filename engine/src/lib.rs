//! The native engine of qanat: moves bytes and packets, decides nothing.
//!
//! `py/` is the border to Python; nothing else imports pyo3.

pub mod plan;
