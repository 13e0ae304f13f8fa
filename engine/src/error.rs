//! What can go wrong with a request to the engine: a stable code, a sentence, the kernel's number.

use std::fmt;
use std::io;

use crate::relay::endpoint::PlanError;

#[derive(Debug)]
pub struct Error {
    pub code: &'static str,
    pub message: String,
    pub errno: Option<i32>,
}

impl Error {
    pub fn io(code: &'static str, what: &str, error: io::Error) -> Self {
        Self {
            code,
            message: format!("{what}: {error}"),
            errno: error.raw_os_error(),
        }
    }

    pub fn plan(error: &PlanError) -> Self {
        Self::plain("plan", error.to_string())
    }

    pub fn json(error: &serde_json::Error) -> Self {
        Self::plain("plan", format!("not a plan: {error}"))
    }

    pub fn closed() -> Self {
        Self::plain("closed", "the engine is shut down".to_owned())
    }

    pub fn stuck() -> Self {
        Self::plain("stuck", "a worker doesn't answer".to_owned())
    }

    pub fn no_endpoint() -> Self {
        Self::plain("unknown", "no such endpoint".to_owned())
    }

    pub fn no_group() -> Self {
        Self::plain("unknown", "no such group of endpoints".to_owned())
    }

    pub fn plain(code: &'static str, message: String) -> Self {
        Self {
            code,
            message,
            errno: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
