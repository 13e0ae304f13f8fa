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
use crate::net::fd::Fd;

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

/// What a flow has left: client and target (-1 for what has ended), bytes unread, head asked, answer so far, why,
/// requests, bytes up of the unanswered one.
type Recovered<'py> = (
    i32,
    i32,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    &'static str,
    u64,
    u64,
);

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
        let batch = self.get()?.take();
        Ok(batch
            .into_iter()
            .map(|report| (report.handle, report.kind, report.text))
            .collect())
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

    #[pyo3(signature = (client_fd, target_fd, plan, unread = None))]
    fn exchange(
        &self,
        client_fd: i32,
        target_fd: i32,
        plan: &str,
        unread: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let desk = self.get()?;
        let plan = parse(plan)?;
        let unread = bytes(unread)?.into_owned();
        Ok(desk.exchange(client_fd, target_fd, plan, unread)?)
    }

    fn recover<'py>(&self, py: Python<'py>, flow: u64) -> PyResult<Option<Recovered<'py>>> {
        Ok(self.get()?.recover(flow).map(|left| {
            (
                left.client.map_or(-1, Fd::give_away),
                left.target.map_or(-1, Fd::give_away),
                PyBytes::new(py, &left.unread),
                PyBytes::new(py, &left.asked),
                PyBytes::new(py, &left.answered),
                left.why,
                left.requests,
                left.up,
            )
        }))
    }

    #[pyo3(signature = (fd, unread = None))]
    fn adopt(&self, fd: i32, unread: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        Ok(self.get()?.adopt(fd, bytes(unread)?.into_owned())?)
    }

    fn dial(&self, plan: &str) -> PyResult<u64> {
        Ok(self.get()?.dial(parse(plan)?)?)
    }

    #[pyo3(signature = (plan, fd = -1))]
    fn listen(&self, py: Python<'_>, plan: &str, fd: i32) -> PyResult<(u64, String)> {
        let desk = self.get()?;
        let plan = parse(plan)?;
        let inherited = (fd >= 0).then_some(fd);
        Ok(py.detach(|| desk.listen(plan, inherited))?)
    }

    fn close_listener(&self, py: Python<'_>, listener: u64) -> PyResult<()> {
        let desk = self.get()?;
        py.detach(|| desk.close_listener(listener));
        Ok(())
    }

    /// Makes keys and certificates ready, for the first time with a plan.
    #[pyo3(signature = (leg, plan, unread = None))]
    fn tls_accept(
        &self,
        py: Python<'_>,
        leg: u64,
        plan: &str,
        unread: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let desk = self.get()?;
        let unread = bytes(unread)?.into_owned();
        Ok(py.detach(|| desk.tls_accept(leg, plan, unread))?)
    }

    fn tls_connect(&self, py: Python<'_>, leg: u64, plan: &str) -> PyResult<()> {
        let desk = self.get()?;
        Ok(py.detach(|| desk.tls_connect(leg, plan))?)
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        leg: u64,
        most: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let read = self.get()?.read(leg, most, |incoming, count| {
            PyBytes::new_with(py, count, |room| {
                let (one, other) = incoming.as_slices();
                let first = one.len().min(count);
                room[..first].copy_from_slice(&one[..first]);
                room[first..].copy_from_slice(&other[..count - first]);
                Ok(())
            })
        })?;
        read.transpose()
    }

    fn write(&self, leg: u64, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.get()?.write(leg, &bytes(Some(data))?)?)
    }

    fn finish(&self, leg: u64) -> PyResult<()> {
        Ok(self.get()?.finish(leg)?)
    }

    fn drained(&self, leg: u64) -> PyResult<bool> {
        Ok(self.get()?.is_drained(leg)?)
    }

    fn close(&self, leg: u64) -> PyResult<()> {
        self.get()?.close(leg);
        Ok(())
    }

    fn abort(&self, leg: u64) -> PyResult<()> {
        self.get()?.abort(leg);
        Ok(())
    }

    #[pyo3(signature = (client, target, plan, unread_client = None, unread_target = None))]
    fn join(
        &self,
        client: u64,
        target: u64,
        plan: &str,
        unread_client: Option<&Bound<'_, PyAny>>,
        unread_target: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let desk = self.get()?;
        let plan = parse(plan)?;
        let (up, down) = (bytes(unread_client)?, bytes(unread_target)?);
        Ok(desk.join(client, target, plan, up.into_owned(), down.into_owned())?)
    }

    fn counters(&self, py: Python<'_>, flow: u64) -> PyResult<Option<(u64, u64)>> {
        let desk = self.get()?;
        Ok(py.detach(|| desk.counted(flow))?)
    }

    fn cut(&self, flow: u64) -> PyResult<()> {
        Ok(self.get()?.cut(flow)?)
    }

    fn associate(&self, plan: &str) -> PyResult<(u64, String)> {
        let (handle, address) = self.get()?.associate(parse(plan)?)?;
        Ok((handle, address.to_string()))
    }

    fn allow(&self, association: u64, target: String, address: &str) -> PyResult<()> {
        Ok(self.get()?.allow(association, target, address)?)
    }

    fn deny(&self, association: u64, target: String, reason: &str) -> PyResult<()> {
        Ok(self.get()?.deny(association, target, reason)?)
    }

    fn release(&self, association: u64) -> PyResult<()> {
        Ok(self.get()?.release(association)?)
    }

    fn set_rates(&self, key: &str, up: Option<f64>, down: Option<f64>) -> PyResult<()> {
        Ok(self.get()?.set_rates(key, up, down)?)
    }

    fn spend(&self, key: &str, up: usize, down: usize) -> PyResult<f64> {
        Ok(self.get()?.spend(key, up, down))
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
