//! Addresses of pods, from the node's range.

use super::config::Cidr;
use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

/// No address is free.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("failed to allocate for range 0: no IP addresses available in range set: {0}")]
pub(super) struct Exhausted(String);

/// Who holds which address. The first is the network, the second the bridge, the last broadcast.
pub(super) struct Ipam {
    range: Cidr,
    held: HashMap<IpAddr, String>,
    next: u64,
}

impl Ipam {
    pub fn new(range: Cidr) -> Self {
        Self { range, held: HashMap::new(), next: 2 }
    }

    /// Notes an address that a sandbox found at start already has.
    pub fn adopt(&mut self, address: IpAddr, uid: &str) {
        if let Some(index) = self.range.index(address) {
            self.held.insert(address, uid.to_owned());
            self.next = self.next.max(index + 1);
        }
    }

    /// The pod's address; a free one if it has none. Addresses come back into use as late as
    /// possible, so that a client's stale connection does not meet a new pod.
    pub fn allocate(&mut self, uid: &str) -> Result<IpAddr, Exhausted> {
        if let Some((address, _)) = self.held.iter().find(|(_, holder)| *holder == uid) {
            return Ok(*address);
        }
        let usable = self.range.len().saturating_sub(3);
        for step in 0..usable {
            let index = 2 + (self.next - 2 + step) % usable;
            let Some(address) = self.range.address(index).map(IpAddr::V4) else { continue };
            if let Entry::Vacant(free) = self.held.entry(address) {
                free.insert(uid.to_owned());
                self.next = index + 1;
                return Ok(address);
            }
        }
        Err(Exhausted(self.range.to_string()))
    }

    /// Gives the pod's address back.
    pub fn release(&mut self, uid: &str) {
        self.held.retain(|_, holder| holder != uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_rotate_and_run_out() {
        let mut ipam = Ipam::new("10.244.0.0/29".parse().unwrap());
        ipam.adopt("10.244.0.3".parse().unwrap(), "old");
        let first = ipam.allocate("a").unwrap();
        assert_eq!(first.to_string(), "10.244.0.4");
        assert_eq!(ipam.allocate("a").unwrap(), first);
        ipam.release("a");
        assert_eq!(ipam.allocate("b").unwrap().to_string(), "10.244.0.5");
        for uid in ["c", "d", "e"] {
            ipam.allocate(uid).unwrap();
        }
        assert!(ipam.allocate("f").unwrap_err().to_string().contains("10.244.0.0/29"));
    }
}
