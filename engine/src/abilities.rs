//! What this build is, and what the running kernel lets it do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;

use crate::net::fd::Fd;
use crate::net::socket;

/// `UDP_SEGMENT` and `UDP_GRO` of linux/udp.h.
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// JSON: version, profile, target and features of this build.
pub fn build_info() -> String {
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "profile": profile,
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "features": ["tcp", "udp", "splice", "mptcp", "gso", "gro", "dns"],
    })
    .to_string()
}

/// JSON: what was tried on this kernel and whether it worked.
pub fn probe() -> String {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let datagram = socket::datagram(&any);
    let on_datagram = |level, name, value| {
        datagram
            .as_ref()
            .is_ok_and(|fd| socket::set(fd, level, name, value).is_ok())
    };
    json!({
        "mptcp": mptcp(),
        "splice": splice().is_ok(),
        "pipe_max": pipe_max(),
        "udp_gso": on_datagram(libc::SOL_UDP, UDP_SEGMENT, 1200),
        "udp_gro": on_datagram(libc::SOL_UDP, UDP_GRO, 1),
        "reuseport": on_datagram(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1),
        "bindtodevice": datagram
            .as_ref()
            .is_ok_and(|fd| socket::bind_device(fd, "lo").is_ok()),
    })
    .to_string()
}

fn mptcp() -> bool {
    // SAFETY: plain arguments.
    socket::check(unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            libc::IPPROTO_MPTCP,
        )
    })
    .map(Fd::own)
    .is_ok()
}

/// Moves one byte from a pipe to a socket and back out.
fn splice() -> io::Result<()> {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    let (mut reader, writer) = UnixStream::pair()?;
    let (pipe_out, mut pipe_in) = io::pipe()?;
    pipe_in.write_all(b"q")?;
    // SAFETY: plain arguments; null offsets are right for pipes and sockets.
    let moved = socket::check_len(unsafe {
        libc::splice(
            pipe_out.as_raw_fd(),
            std::ptr::null_mut(),
            writer.as_raw_fd(),
            std::ptr::null_mut(),
            1,
            0,
        )
    })?;
    let mut byte = [0; 1];
    reader.read_exact(&mut byte)?;
    if moved == 1 && byte == *b"q" {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}

fn pipe_max() -> u64 {
    std::fs::read_to_string("/proc/sys/fs/pipe-max-size")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_json_with_the_promised_keys() {
        let found: serde_json::Value = serde_json::from_str(&probe()).expect("json");
        for key in [
            "mptcp",
            "splice",
            "pipe_max",
            "udp_gso",
            "udp_gro",
            "reuseport",
            "bindtodevice",
        ] {
            assert!(found.get(key).is_some(), "{key}");
        }
        assert_eq!(found["splice"], true);
        let build: serde_json::Value = serde_json::from_str(&build_info()).expect("json");
        assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    }
}
