//! System calls: sockets, their options, listening and connecting.

pub mod addr;
pub mod fd;
pub mod network;
pub mod reserve;
pub mod socket;
pub mod udp;
