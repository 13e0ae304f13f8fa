//! Trains in and out.
