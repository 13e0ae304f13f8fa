//! HTTP/1.1 as far as messages between one client and one server are ordinary. Whatever is not goes
//! back to the owner, as it came.

pub mod chunks;
pub mod head;
pub mod ordinary;
