//! Networks of addresses, for access lists and trusted peers.

use std::net::IpAddr;
use std::str::FromStr;

use super::addr::unmapped;

/// A network: addresses that agree in their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// A list of networks.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Reads every entry; the one that is no network is given back.
    pub fn parse(entries: &[String]) -> Result<Self, &str> {
        entries
            .iter()
            .map(|entry| entry.parse().map_err(|()| entry.as_str()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is in one of them; a mapped IPv4 address counts as IPv4.
    pub fn contain(&self, ip: IpAddr) -> bool {
        let ip = unmapped(ip);
        self.0.iter().any(|network| network.contains(ip))
    }
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let apart = u32::from(base) ^ u32::from(ip);
                apart.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let apart = u128::from(base) ^ u128::from(ip);
                apart.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| ())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().map_err(|_| ())?,
        };
        if bits > most {
            return Err(());
        }
        // Mapped addresses are looked up as IPv4, so that is what a mapped network means.
        match (base, unmapped(base)) {
            (IpAddr::V6(_), base @ IpAddr::V4(_)) if bits >= 96 => Ok(Self {
                base,
                bits: bits - 96,
            }),
            _ => Ok(Self { base, bits }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(entries: &[&str]) -> Networks {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        Networks::parse(&entries).expect("networks")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn an_address_is_in_a_network_when_the_first_bits_agree() {
        let list = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/33", "0.0.0.0/32"]);
        for inside in [
            "10.255.0.1",
            "192.0.2.7",
            "::ffff:10.1.2.3",
            "2001:db8:7fff::1",
            "0.0.0.0",
        ] {
            assert!(list.contain(ip(inside)), "{inside}");
        }
        for outside in [
            "11.0.0.0",
            "192.0.2.6",
            "2001:db8:8000::1",
            "::",
            "::ffff:11.0.0.0",
        ] {
            assert!(!list.contain(ip(outside)), "{outside}");
        }
        assert!(networks(&["0.0.0.0/0"]).contain(ip("255.255.255.255")));
        assert!(!networks(&["0.0.0.0/0"]).contain(ip("::1")));
        assert!(networks(&["::/0"]).contain(ip("ffff::1")));
        assert!(networks(&["::ffff:10.0.0.0/104"]).contain(ip("10.9.9.9")));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "", "10.0.0.0/", "x/8"] {
            let entries = ["127.0.0.0/8".to_owned(), wrong.to_owned()];
            assert_eq!(Networks::parse(&entries).err(), Some(wrong));
        }
    }
}
