//! Flows through a SOCKS5 proxy: an association for each, and the header before its datagrams.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::arguments::Arguments;

const PATIENCE: Duration = Duration::from_secs(10);

/// The way of a flow's datagrams: straight to the address, or through an association there.
pub struct Way {
    address: SocketAddr,
    proxy: Option<SocketAddr>,
    /// Associations live by these.
    connections: Vec<TcpStream>,
}

impl Way {
    /// `--socks PROXY`, if it is there.
    pub fn take(
        arguments: &mut Arguments,
        address: SocketAddr,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self {
            address,
            proxy: arguments.take::<SocketAddr>("socks")?,
            connections: Vec::new(),
        })
    }

    /// What goes before each datagram.
    pub fn header(&self) -> Vec<u8> {
        match (self.proxy, self.address) {
            (Some(_), SocketAddr::V4(to)) => {
                let mut header = vec![0, 0, 0, 1];
                header.extend_from_slice(&to.ip().octets());
                header.extend_from_slice(&to.port().to_be_bytes());
                header
            }
            _ => Vec::new(),
        }
    }

    /// Connects a flow's socket.
    pub fn connect(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let Some(proxy) = self.proxy else {
            return socket.connect(self.address);
        };
        let (connection, relay) = associate(proxy, socket.local_addr()?.port())?;
        self.connections.push(connection);
        socket.connect(relay)
    }
}

/// RFC 1928 sections 3, 4 and 6, without authentication.
fn associate(proxy: SocketAddr, port: u16) -> io::Result<(TcpStream, SocketAddr)> {
    let mut connection = TcpStream::connect(proxy)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(&[5, 1, 0])?;
    let mut chosen = [0; 2];
    connection.read_exact(&mut chosen)?;
    if chosen != [5, 0] {
        return Err(io::Error::other("the proxy wants authentication"));
    }
    let [high, low] = port.to_be_bytes();
    connection.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, high, low])?;
    let mut reply = [0; 10];
    connection.read_exact(&mut reply)?;
    let [5, 0, 0, 1, a, b, c, d, high, low] = reply else {
        return Err(io::Error::other(format!("the proxy replies {reply:?}")));
    };
    let ip = match Ipv4Addr::new(a, b, c, d) {
        Ipv4Addr::UNSPECIFIED => proxy.ip(),
        ip => ip.into(),
    };
    let relay = SocketAddr::new(ip, u16::from_be_bytes([high, low]));
    Ok((connection, relay))
}
