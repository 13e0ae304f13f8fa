//! Connections that were used once and then rest, held until stdin closes.

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::Duration;

use crate::arguments::Arguments;
use crate::json::Object;
use crate::sys;

pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = arguments.address()?;
    let connections = arguments.take_or("connections", 1_000_usize)?;
    let size = arguments.take_or("size", 64_usize)?;
    arguments.finish()?;

    let message = vec![1; size];
    let mut buffer = vec![0; size];
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = sys::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&message)?;
        stream.read_exact(&mut buffer)?;
        streams.push(stream);
    }
    Object::new()
        .word("event", "open")
        .number("connections", streams.len())
        .print()?;
    while io::stdin().read(&mut [0; 64])? > 0 {}
    for mut stream in streams {
        stream.write_all(&message)?;
        stream.read_exact(&mut buffer)?;
    }
    Object::new()
        .word("command", "idle")
        .number("connections", connections)
        .print()?;
    Ok(())
}
