//! The border to Python: text in, text out, one conversion of errors. Described for callers in
//! `src/qanat/_engine.pyi`.

mod desk;

use std::sync::Arc;
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use serde::de::DeserializeOwned;

use crate::binding::Inherited;
use crate::engine::Engine;
use crate::error::Error;
use crate::net::fd::{self, Fd};
use crate::{abilities, resolve, runtime};

create_exception!(
    qanat._engine,
    EngineError,
    PyException,
    "A request that the engine can't carry out."
);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::attach(|py| {
            let raised = EngineError::new_err(error.message);
            let value = raised.value(py);
            // Setting an attribute on a fresh exception doesn't fail.
            let _ = value.setattr("code", error.code);
            let _ = value.setattr("errno", error.errno);
            raised
        })
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::json(&error))
}

/// A drain time: negative means that there is none.
fn drain(seconds: f64) -> Option<Duration> {
    let longest = Duration::from_secs(1 << 32);
    Duration::try_from_secs_f64(seconds)
        .ok()
        .map(|drain| drain.min(longest))
}

fn inherited(fd: i32) -> Option<Fd> {
    (fd >= 0).then(|| Fd::own(fd))
}

#[pyclass(name = "Engine", module = "qanat._engine", frozen)]
struct PyEngine {
    /// Leaked in a forked child, whose copy must not be torn down.
    engine: std::mem::ManuallyDrop<Arc<Engine>>,
    pid: u32,
}

impl Drop for PyEngine {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // Desks may still hold it.
            self.engine.shutdown();
            // SAFETY: dropped once, here, and never used again.
            unsafe { std::mem::ManuallyDrop::drop(&mut self.engine) };
        }
    }
}

impl PyEngine {
    fn get(&self) -> Result<&Arc<Engine>, Error> {
        if self.pid == std::process::id() {
            Ok(&self.engine)
        } else {
            Err(Error::closed())
        }
    }
}

#[pymethods]
impl PyEngine {
    #[new]
    #[pyo3(signature = (workers = 0, pipe_size = 0))]
    fn new(py: Python<'_>, workers: usize, pipe_size: usize) -> PyResult<Self> {
        let engine = py.detach(|| Engine::start(workers, pipe_size))?;
        Ok(Self {
            engine: std::mem::ManuallyDrop::new(Arc::new(engine)),
            pid: std::process::id(),
        })
    }

    #[getter]
    fn workers(&self) -> PyResult<usize> {
        Ok(self.get()?.workers())
    }

    fn open_group(&self, limits: &str) -> PyResult<u32> {
        Ok(self.get()?.open_group(&parse(limits)?)?)
    }

    fn set_group_limits(&self, group: u32, limits: &str) -> PyResult<()> {
        Ok(self.get()?.set_group_limits(group, &parse(limits)?)?)
    }

    fn watch_group(&self, group: u32, ended: bool) -> PyResult<()> {
        Ok(self.get()?.watch_group(group, ended)?)
    }

    fn close_group(&self, py: Python<'_>, group: u32) -> PyResult<()> {
        let engine = self.get()?;
        Ok(py.detach(|| engine.close_group(group))?)
    }

    #[pyo3(signature = (group, plan, tcp_fd = -1, udp_fd = -1, takeover = false))]
    fn bind(
        &self,
        py: Python<'_>,
        group: u32,
        plan: &str,
        tcp_fd: i32,
        udp_fd: i32,
        takeover: bool,
    ) -> PyResult<(u32, Option<String>, Option<String>)> {
        let engine = self.get()?;
        let plan = parse(plan)?;
        let sockets = Inherited {
            tcp: inherited(tcp_fd),
            udp: inherited(udp_fd),
        };
        let bound = py.detach(|| engine.bind(group, plan, sockets, takeover))?;
        Ok((
            bound.handle,
            bound.tcp.map(|addr| addr.to_string()),
            bound.udp.map(|addr| addr.to_string()),
        ))
    }

    fn start(&self, py: Python<'_>, handles: Vec<u32>) -> PyResult<()> {
        let engine = self.get()?;
        Ok(py.detach(|| engine.serve(&handles))?)
    }

    #[pyo3(signature = (handle, plan, drain = -1.0))]
    fn update(&self, py: Python<'_>, handle: u32, plan: &str, drain: f64) -> PyResult<()> {
        let engine = self.get()?;
        let plan = parse(plan)?;
        Ok(py.detach(|| engine.update(handle, plan, self::drain(drain)))?)
    }

    #[pyo3(signature = (handle, drain = -1.0))]
    fn close(&self, py: Python<'_>, handle: u32, drain: f64) -> PyResult<()> {
        let engine = self.get()?;
        Ok(py.detach(|| engine.close(handle, self::drain(drain)))?)
    }

    fn flows(&self, py: Python<'_>, group: u32) -> PyResult<String> {
        let engine = self.get()?;
        Ok(py.detach(|| engine.flows(group))?)
    }

    fn kill(&self, py: Python<'_>, group: u32, flow: u64) -> PyResult<bool> {
        let engine = self.get()?;
        Ok(py.detach(|| engine.kill(group, flow))?)
    }

    fn kill_all(&self, py: Python<'_>, group: u32) -> PyResult<usize> {
        let engine = self.get()?;
        Ok(py.detach(|| engine.kill_all(group))?)
    }

    fn stats(&self, py: Python<'_>, group: u32) -> PyResult<String> {
        let engine = self.get()?;
        Ok(py.detach(|| engine.stats(group))?)
    }

    fn open_flows(&self, group: u32) -> PyResult<u32> {
        Ok(self.get()?.open_flows(group)?)
    }

    fn flush_resolvers(&self) -> PyResult<()> {
        self.get()?.flush_resolvers();
        Ok(())
    }

    fn next_events(&self, py: Python<'_>, timeout: f64) -> PyResult<Vec<String>> {
        let engine = self.get()?;
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::ZERO);
        py.detach(|| engine.next_events(timeout.min(Duration::from_secs(3600))))
            .ok_or_else(|| Error::closed().into())
    }

    fn listen_to_questions(&self) -> PyResult<i32> {
        Ok(self.get()?.listen_to_questions()?)
    }

    fn take_questions(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let engine = self.get()?;
        Ok(py.detach(|| engine.take_questions()))
    }

    fn answer(&self, py: Python<'_>, answers: &str) -> PyResult<()> {
        let engine = self.get()?;
        let answers = parse(answers)?;
        py.detach(|| engine.answer(answers));
        Ok(())
    }

    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        if let Ok(engine) = self.get() {
            py.detach(|| engine.shutdown());
        }
        Ok(())
    }

    fn after_fork_in_child(&self) {
        if self.pid != std::process::id() {
            fd::close_all_after_fork();
            runtime::abandon_after_fork();
            resolve::abandon_after_fork();
        }
    }
}

/// What this engine was built from.
#[pyfunction]
fn build_info() -> String {
    abilities::build_info()
}

/// What this kernel lets the engine do.
#[pyfunction(name = "abilities")]
fn kernel_abilities(py: Python<'_>) -> String {
    py.detach(abilities::probe)
}

#[pymodule(name = "_engine")]
mod module {
    #[pymodule_export]
    use super::desk::PyDesk;
    #[pymodule_export]
    use super::{EngineError, PyEngine, build_info, kernel_abilities};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
