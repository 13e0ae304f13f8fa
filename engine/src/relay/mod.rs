//! The life of a TCP flow and of a UDP association, step by step.

pub mod access;
pub mod dial;
pub mod endpoint;
pub mod health;
pub mod hook;
pub mod listener;
mod overhear;
pub mod proxy;
pub mod reach;
pub mod road;
pub mod route;
pub mod tcp;
pub mod udp;
pub mod uot;
pub mod websocket;
pub mod wrap;
pub mod young;
