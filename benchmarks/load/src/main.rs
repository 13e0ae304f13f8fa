//! `qanat-load`: the load of the benchmarks, client and server, each a process of its own.
//!
//! It knows nothing of qanat: every relay is an address to connect to. One thread and one epoll
//! per process, because what the generator costs is taken from the relay that shares its cores.
//! Results are one JSON object per line on stdout.

mod arguments;
mod bulk;
mod connect;
mod histogram;
mod idle;
mod json;
mod pattern;
mod pingpong;
mod serve;
mod socks;
mod sys;
mod tls;
mod udp_blast;
mod udp_pingpong;
mod udp_serve;

use std::error::Error;
use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "\
usage: qanat-load COMMAND [ADDRESS] [--option value]...

  serve          [--echo A] [--discard A] [--source A] [--udp-echo A] [--udp-sink A] [--verify 1]
                 [--gro 1]; prints the bound addresses, ends when stdin closes
  bulk           ADDRESS --direction up|down [--connections 1] [--verify 1]
  ping-pong      ADDRESS [--connections 1] [--size 64]
  connect        ADDRESS [--concurrency 1] [--size 64] [--opening HEX]
  idle           ADDRESS [--connections 1000] [--size 64]; holds until stdin closes
  udp-blast      ADDRESS --sink A [--rate 10000] [--size 1200] [--flows 1] [--tick-us 500]
                 [--gso 1] [--socks PROXY]
  udp-ping-pong  ADDRESS [--flows 1] [--size 200] [--socks PROXY]
  tls-bulk       ADDRESS --direction up|down
  tls-handshakes ADDRESS [--size 64]

Timed commands take [--seconds 2] [--warm-up 0.3].";

fn run(command: &str, arguments: Arguments) -> Result<(), Box<dyn Error>> {
    match command {
        "serve" => serve::run(arguments),
        "bulk" => bulk::run(arguments),
        "ping-pong" => pingpong::run(arguments),
        "connect" => connect::run(arguments),
        "idle" => idle::run(arguments),
        "udp-blast" => udp_blast::run(arguments),
        "udp-ping-pong" => udp_pingpong::run(arguments),
        "tls-bulk" => tls::bulk(arguments),
        "tls-handshakes" => tls::handshakes(arguments),
        _ => Err(format!("no such command: {command}\n{USAGE}").into()),
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(command) = words.next() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = Arguments::parse(words).and_then(|arguments| run(&command, arguments));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("qanat-load {command}: {error}");
            ExitCode::FAILURE
        }
    }
}
