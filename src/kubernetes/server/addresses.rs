//! ClusterIPs and node ports: which are taken.

use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::BTreeSet, net::Ipv4Addr};

/// Node ports, as kube-apiserver's `--service-node-port-range`.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// A range of IPv4 addresses: `10.0.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    bits: u8,
}

/// A text that is no IPv4 range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range such as 10.0.0.0/16")]
pub struct CidrError(String);

impl std::str::FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let fail = || CidrError(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(fail)?;
        let bits: u8 = bits.parse().ok().filter(|bits| (8..=30).contains(bits)).ok_or_else(fail)?;
        let base = u32::from(address.parse::<Ipv4Addr>().map_err(|_| fail())?);
        if base & (u32::MAX >> bits) != 0 {
            return Err(fail());
        }
        Ok(Self { base, bits })
    }
}

impl Cidr {
    fn size(self) -> u32 {
        1 << (32 - self.bits)
    }
    /// The address at a place in the range.
    pub fn nth(self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base.wrapping_add(place))
    }
    /// Whether an address is in the range, network and broadcast address apart.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let place = u32::from(address).wrapping_sub(self.base);
        (1..self.size() - 1).contains(&place)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

#[derive(Default)]
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

/// Why an address or port cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not in the range.
    #[error("provided {0} is not in the valid range. The range of valid {1}")]
    OutOfRange(&'static str, String),
    /// Another service has it.
    #[error("provided {0} is already allocated")]
    Taken(&'static str),
    /// None is left.
    #[error("{0} range is full")]
    Full(&'static str),
}

/// Addresses and ports of services.
pub struct ServiceAddresses {
    range: Cidr,
    taken: Mutex<Taken>,
}

impl ServiceAddresses {
    /// Nothing is taken yet.
    pub fn new(range: Cidr) -> Self {
        Self { range, taken: Mutex::default() }
    }

    /// The range of ClusterIPs.
    pub fn range(&self) -> Cidr {
        self.range
    }

    /// Takes what a stored service holds, at start.
    pub fn adopt(&self, service: &Value) {
        let mut taken = self.taken.lock();
        taken.addresses.extend(addresses(service));
        taken.ports.extend(ports(service));
    }

    /// Takes a given address, or a free one. The first sixteenth of the range (at most 256) is
    /// left to those who ask for an address, as kube-apiserver does.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn take_address(&self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, AddressError> {
        let mut taken = self.taken.lock();
        if let Some(address) = wanted {
            if !self.range.contains(address) {
                return Err(AddressError::OutOfRange("IP", format!("IPs is {}", self.range)));
            }
            return if taken.addresses.insert(address) { Ok(address) } else { Err(AddressError::Taken("IP")) };
        }
        let size = self.range.size();
        let reserved = (size / 16).clamp(16.min(size / 2), 256);
        let free = size - reserved - 1;
        let start = rand::random_range(0..free);
        let upper = (0..free).map(|step| reserved + (start + step) % free);
        let found = upper.chain(1..reserved).map(|place| self.range.nth(place)).find(|a| !taken.addresses.contains(a));
        let address = found.ok_or(AddressError::Full("IP"))?;
        taken.addresses.insert(address);
        Ok(address)
    }

    /// Takes a given node port, or a free one.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn take_port(&self, wanted: Option<u16>) -> Result<u16, AddressError> {
        let mut taken = self.taken.lock();
        if let Some(port) = wanted {
            if !NODE_PORTS.contains(&port) {
                let range = format!("ports is {}-{}", NODE_PORTS.start(), NODE_PORTS.end());
                return Err(AddressError::OutOfRange("port", range));
            }
            return if taken.ports.insert(port) { Ok(port) } else { Err(AddressError::Taken("port")) };
        }
        let (first, count) = (*NODE_PORTS.start(), NODE_PORTS.end() - NODE_PORTS.start() + 1);
        let start = rand::random_range(0..count);
        let free = (0..count).map(|step| first + (start + step) % count).find(|port| !taken.ports.contains(port));
        let port = free.ok_or(AddressError::Full("port"))?;
        taken.ports.insert(port);
        Ok(port)
    }

    /// Gives back what a removed service held.
    pub fn release(&self, service: &Value) {
        self.give_back(&addresses(service).collect::<Vec<_>>(), &ports(service).collect::<Vec<_>>());
    }

    /// Gives back what `old` held and `new` does not.
    pub fn release_unused(&self, old: &Value, new: &Value) {
        let (kept_addresses, kept_ports): (Vec<_>, Vec<_>) = (addresses(new).collect(), ports(new).collect());
        let unused_addresses: Vec<_> = addresses(old).filter(|a| !kept_addresses.contains(a)).collect();
        let unused_ports: Vec<_> = ports(old).filter(|p| !kept_ports.contains(p)).collect();
        self.give_back(&unused_addresses, &unused_ports);
    }

    /// Gives back single addresses and ports.
    pub fn give_back(&self, addresses: &[Ipv4Addr], ports: &[u16]) {
        let mut taken = self.taken.lock();
        for address in addresses {
            taken.addresses.remove(address);
        }
        for port in ports {
            taken.ports.remove(port);
        }
    }
}

/// Addresses that a service holds.
pub fn addresses(service: &Value) -> impl Iterator<Item = Ipv4Addr> {
    let spec = &service["spec"];
    let first = spec["clusterIP"].as_str();
    let all = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    first.into_iter().chain(all).filter_map(|text| text.parse().ok())
}

/// Node ports that a service holds.
pub fn ports(service: &Value) -> impl Iterator<Item = u16> {
    let spec = &service["spec"];
    let listed = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    listed
        .chain([&spec["healthCheckNodePort"]])
        .filter_map(|port| u16::try_from(port.as_u64()?).ok())
        .filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_once() {
        let pool = ServiceAddresses::new("10.0.0.0/28".parse().unwrap());
        let dns = "10.0.0.10".parse().unwrap();
        assert_eq!(pool.take_address(Some(dns)), Ok(dns));
        assert_eq!(pool.take_address(Some(dns)), Err(AddressError::Taken("IP")));
        assert!(pool.take_address(Some("10.0.1.1".parse().unwrap())).is_err());
        let rest: BTreeSet<_> = std::iter::from_fn(|| pool.take_address(None).ok()).collect();
        assert_eq!(rest.len(), 13, "16 less network, broadcast and the one taken");
        pool.give_back(&[dns], &[]);
        assert_eq!(pool.take_address(None), Ok(dns));
        assert!(pool.take_port(Some(80)).is_err());
        assert_eq!(pool.take_port(Some(30080)), Ok(30080));
    }

    #[test]
    fn ranges_are_checked() {
        for bad in ["10.0.0.0", "10.0.0.1/16", "x/8", "10.0.0.0/40"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
