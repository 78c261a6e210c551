//! Virtual addresses of Azure names inside the cluster: DNS answers them, the proxy listens there.

use aksim_model::endpoint::AzureName;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// First address of the range for Azure names, a /16.
const BASE: u32 = u32::from_be_bytes([10, 225, 0, 0]);
const SIZE: u32 = 1 << 16;

/// The virtual address of each host. A host keeps its address whatever other names come and go,
/// short of a collision: the address is a hash of the name.
pub fn virtual_addresses(names: &[AzureName]) -> BTreeMap<String, Ipv4Addr> {
    let hosts: BTreeSet<&str> = names.iter().map(|n| n.host.as_str()).collect();
    let mut taken = BTreeSet::new();
    let mut result = BTreeMap::new();
    for host in hosts {
        // Neither the network's nor the broadcast address.
        let mut offset = crc32fast::hash(host.as_bytes()) % (SIZE - 2);
        while !taken.insert(offset) {
            offset = (offset + 1) % (SIZE - 2);
        }
        result.insert(host.to_owned(), Ipv4Addr::from(BASE + 1 + offset));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str, port: u16) -> AzureName {
        AzureName { host: host.into(), port, target: "127.0.0.1:1".parse().unwrap() }
    }

    #[test]
    fn a_host_keeps_its_address() {
        let few = virtual_addresses(&[name("shopacr.azurecr.io", 443)]);
        let more =
            virtual_addresses(&[name("a.b", 1), name("shopacr.azurecr.io", 443), name("shopacr.azurecr.io", 80)]);
        assert_eq!(few["shopacr.azurecr.io"], more["shopacr.azurecr.io"]);
        assert_eq!(more.len(), 2);
        assert!(more.values().all(|ip| ip.octets()[..2] == [10, 225]));
    }
}
