//! The border of `Desk`: what Python holds between accepting and letting go. Most calls are so
//! short that letting go of the GIL would cost more than they do.

use std::borrow::Cow;
use std::mem::ManuallyDrop;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{PyEngine, parse};
use crate::desk::Desk;
use crate::error::Error;

#[pyclass(name = "Desk", module = "qanat._engine", frozen)]
pub struct PyDesk {
    /// Leaked in a forked child, whose copy must not be torn down.
    desk: ManuallyDrop<Desk>,
    pid: u32,
}

impl Drop for PyDesk {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // SAFETY: dropped once, here, and never used again.
            let mut drop = || unsafe { ManuallyDrop::drop(&mut self.desk) };
            // It waits for the workers.
            Python::attach(|py| py.detach(&mut drop));
        }
    }
}

impl PyDesk {
    fn get(&self) -> Result<&Desk, Error> {
        if self.pid == std::process::id() {
            Ok(&self.desk)
        } else {
            Err(Error::closed())
        }
    }
}

#[pymethods]
impl PyDesk {
    #[new]
    #[pyo3(signature = (engine, group, waiting = 65_536))]
    fn new(engine: &PyEngine, group: u32, waiting: usize) -> PyResult<Self> {
        let desk = Desk::open(engine.get()?, group, waiting)?;
        Ok(Self {
            desk: ManuallyDrop::new(desk),
            pid: std::process::id(),
        })
    }

    fn fileno(&self) -> PyResult<i32> {
        Ok(self.get()?.bell()?)
    }

    fn take(&self) -> PyResult<Vec<(u64, &'static str, String)>> {
        Ok(self.get()?.take())
    }

    fn endpoint(&self, py: Python<'_>, name: &str, listen: &str) -> PyResult<u32> {
        let desk = self.get()?;
        Ok(py.detach(|| desk.endpoint(name, listen))?)
    }

    fn close_endpoint(&self, py: Python<'_>, endpoint: u32) -> PyResult<()> {
        let desk = self.get()?;
        Ok(py.detach(|| desk.close_endpoint(endpoint))?)
    }

    #[pyo3(signature = (client_fd, target_fd, plan, unread_client = None, unread_target = None))]
    fn lower(
        &self,
        client_fd: i32,
        target_fd: i32,
        plan: &str,
        unread_client: Option<&Bound<'_, PyAny>>,
        unread_target: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let desk = self.get()?;
        let plan = parse(plan)?;
        let (up, down) = (bytes(unread_client)?, bytes(unread_target)?);
        Ok(desk.lower(
            client_fd,
            target_fd,
            plan,
            up.into_owned(),
            down.into_owned(),
        )?)
    }

    fn counters(&self, py: Python<'_>, flow: u64) -> PyResult<Option<(u64, u64)>> {
        let desk = self.get()?;
        Ok(py.detach(|| desk.counted(flow))?)
    }

    fn cut(&self, flow: u64) -> PyResult<()> {
        Ok(self.get()?.cut(flow)?)
    }

    fn set_rates(&self, key: &str, up: Option<f64>, down: Option<f64>) -> PyResult<()> {
        Ok(self.get()?.set_rates(key, up, down)?)
    }

    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        if let Ok(desk) = self.get() {
            py.detach(|| desk.shutdown());
        }
        Ok(())
    }
}

/// What is in a bytes-like object; nothing in `None`.
fn bytes<'a>(object: Option<&'a Bound<'_, PyAny>>) -> PyResult<Cow<'a, [u8]>> {
    let Some(object) = object else {
        return Ok(Cow::Borrowed(&[]));
    };
    match object.cast::<PyBytes>() {
        Ok(bytes) => Ok(Cow::Borrowed(bytes.as_bytes())),
        Err(_) => Ok(Cow::Owned(
            PyBuffer::<u8>::get(object)?.to_vec(object.py())?,
        )),
    }
}
