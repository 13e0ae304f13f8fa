//! UDP associations (placeholder while the module is being written).

use std::io;
use std::rc::Rc;

use super::endpoint::LocalEndpoint;
use crate::runtime::Worker;

pub fn start(_worker: &Rc<Worker>, _endpoint: &Rc<LocalEndpoint>) -> io::Result<()> {
    Ok(())
}
