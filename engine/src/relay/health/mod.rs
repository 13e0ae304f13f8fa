//! How remotes stand, and what that means for new flows.

pub mod check;
pub mod pool;
pub mod probe;
pub mod standing;
