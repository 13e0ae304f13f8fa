//! Flows: what is known of each one, how its bytes move and how many may live.

pub mod bridge;
pub mod counters;
pub mod ending;
pub mod exchange;
pub mod limits;
pub mod pipes;
pub mod pump;
pub mod rates;
pub mod reason;
pub mod shares;
pub mod table;
pub mod terms;
