//! Targets with names.
