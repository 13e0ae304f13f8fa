//! How remotes stand, and what that means for new flows.

pub mod pool;
pub mod standing;
