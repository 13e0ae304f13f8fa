//! The command line: one optional address, then `--name value` pairs, each of which must be used.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

pub struct Arguments {
    address: Option<String>,
    options: BTreeMap<String, String>,
}

/// How long a timed command runs: results count from the end of the warm-up.
#[derive(Clone, Copy)]
pub struct Span {
    pub warm_up: Duration,
    pub seconds: Duration,
}

impl Arguments {
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut words = words;
        let mut address = None;
        let mut options = BTreeMap::new();
        while let Some(word) = words.next() {
            if let Some(name) = word.strip_prefix("--") {
                let value = words.next().ok_or(format!("--{name} needs a value"))?;
                options.insert(name.to_owned(), value);
            } else if address.is_none() {
                address = Some(word);
            } else {
                return Err(format!("unexpected argument: {word}").into());
            }
        }
        Ok(Self { address, options })
    }

    pub fn address(&mut self) -> Result<SocketAddr, Box<dyn Error>> {
        let text = self.address.take().ok_or("an ADDRESS is needed")?;
        text.parse()
            .map_err(|_| format!("not an address: {text}").into())
    }

    pub fn take<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Box<dyn Error>> {
        match self.options.remove(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(format!("--{name} {text}: not a valid value").into()),
            },
        }
    }

    pub fn take_or<T: FromStr>(&mut self, name: &str, default: T) -> Result<T, Box<dyn Error>> {
        Ok(self.take(name)?.unwrap_or(default))
    }

    pub fn flag(&mut self, name: &str) -> Result<bool, Box<dyn Error>> {
        Ok(self.take_or(name, 0_u8)? != 0)
    }

    pub fn span(&mut self) -> Result<Span, Box<dyn Error>> {
        Ok(Span {
            warm_up: Duration::try_from_secs_f64(self.take_or("warm-up", 0.3)?)?,
            seconds: Duration::try_from_secs_f64(self.take_or("seconds", 2.0)?)?,
        })
    }

    /// Every command ends its parsing with this, so that a mistyped option is never ignored.
    pub fn finish(self) -> Result<(), Box<dyn Error>> {
        if let Some(name) = self.options.keys().next() {
            return Err(format!("unknown option: --{name}").into());
        }
        if let Some(address) = self.address {
            return Err(format!("unexpected argument: {address}").into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Arguments {
        Arguments::parse(line.split_whitespace().map(str::to_owned)).expect("parses")
    }

    #[test]
    fn options_and_address_in_any_order() {
        let mut arguments = parse("--size 7 127.0.0.1:80");
        assert_eq!(arguments.take_or("size", 0_usize).expect("size"), 7);
        assert_eq!(arguments.address().expect("address").port(), 80);
        assert!(arguments.finish().is_ok());
    }

    #[test]
    fn what_nobody_takes_is_an_error() {
        assert!(parse("--sizes 7").finish().is_err());
        assert!(parse("127.0.0.1:80").finish().is_err());
        assert!(parse("--size x").take::<usize>("size").is_err());
    }
}
