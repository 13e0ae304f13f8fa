//! Limits, floods and failures.
