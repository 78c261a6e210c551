//! Routes, links and addresses, by blocking netlink: the agent is single-threaded and forks.

use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoVeth},
        route::{RouteMessage, RouteScope, RouteType},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

/// A netlink socket; it works on the network namespace in which it was opened.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// The end of a veth pair that a pod has.
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Network namespace that it is in.
    pub namespace: BorrowedFd<'a>,
    /// Address that it will have.
    pub ip: IpAddr,
}

/// A hardware address that follows from the IPv4 address, as CNI's plugins have had it: who has
/// talked to the last pod of that address would send to the old one for many seconds.
fn hardware_address(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn unreachable(address: Ipv4Addr) -> RouteMessage {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32);
    route.kind(RouteType::Unreachable).build()
}

/// Table `local`, which the kernel looks at first.
const LOCAL_TABLE: u32 = 255;

impl Netlink {
    /// Opens a socket in the thread's network namespace.
    ///
    /// # Errors
    /// Errors of `socket(2)`.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Index of a link by name.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        let message = LinkUnspec::new_with_name(name).build();
        let mut found = None;
        self.request(RouteNetlinkMessage::GetLink(message), 0, |reply| {
            if let RouteNetlinkMessage::NewLink(link) = reply {
                found = Some(link.header.index);
            }
        })?;
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Makes a bridge and takes it up. Its hardware address is its own, by `gateway`, the address that it
    /// will have: without one it takes the least of its ports', another whenever a pod comes or goes, and
    /// the answers of pods that know the former one are lost.
    ///
    /// # Errors
    /// `EEXIST` when the name is taken.
    pub fn add_bridge(&mut self, name: &str, gateway: Ipv4Addr) -> io::Result<u32> {
        let bridge = LinkBridge::new(name).up().address(hardware_address(gateway).to_vec());
        self.create(RouteNetlinkMessage::NewLink(bridge.build()))?;
        self.index(name)
    }

    /// Makes a veth pair: `name` here, up and in the bridge `controller`; the other end is `peer`.
    ///
    /// # Errors
    /// `EEXIST` when the name is taken.
    pub fn add_veth(&mut self, name: &str, peer: &VethPeer<'_>, controller: u32) -> io::Result<()> {
        let mut other = LinkUnspec::new_with_name(peer.name).setns_by_fd(peer.namespace.as_raw_fd());
        if let IpAddr::V4(ip) = peer.ip {
            other = other.address(hardware_address(ip).to_vec());
        }
        let info = InfoData::Veth(InfoVeth::Peer(other.build()));
        let message = LinkVeth::new(name, "").set_info_data(info).controller(controller).up().build();
        self.create(RouteNetlinkMessage::NewLink(message))
    }

    /// Takes a link up.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn up(&mut self, index: u32) -> io::Result<()> {
        self.acknowledged(RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).up().build()), 0)
    }

    /// Removes a link by name; not an error when there is none.
    ///
    /// # Errors
    /// Errors of netlink.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        match self.acknowledged(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_name(name).build()), 0) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Adds an address to a link; not an error when it is there.
    ///
    /// # Errors
    /// Errors of netlink.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let message = match address {
            IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(v4, prefix).build(),
            IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(v6, prefix).build(),
        };
        self.acknowledged(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds the default route of an IPv4 pod.
    ///
    /// # Errors
    /// Errors of netlink.
    pub fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        self.create(RouteNetlinkMessage::NewRoute(RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build()))
    }

    /// Makes a whole range local, as `ip route add local RANGE dev LINK` does.
    ///
    /// # Errors
    /// Errors of netlink.
    pub fn add_local_range(&mut self, index: u32, network: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, prefix)
            .output_interface(index)
            .table_id(LOCAL_TABLE)
            .scope(RouteScope::Host)
            .kind(RouteType::Local)
            .build();
        self.create(RouteNetlinkMessage::NewRoute(message))
    }

    /// Has connections to an address fail at once (`EHOSTUNREACH`); one that nobody has does not
    /// answer, which is only noticed after seconds.
    ///
    /// # Errors
    /// Errors of netlink.
    pub fn set_unreachable(&mut self, address: Ipv4Addr) -> io::Result<()> {
        self.acknowledged(RouteNetlinkMessage::NewRoute(unreachable(address)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes [`Netlink::set_unreachable`] back; not an error when there is nothing to take back.
    ///
    /// # Errors
    /// Errors of netlink.
    pub fn set_reachable(&mut self, address: Ipv4Addr) -> io::Result<()> {
        match self.acknowledged(RouteNetlinkMessage::DelRoute(unreachable(address)), 0) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn acknowledged(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, flags, |_| {})
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut buffer = vec![0; request.buffer_len()];
        request.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let mut rest = &answer[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(4).clamp(16, rest.len());
                rest = &rest[length..];
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(code) => Err(io::Error::from_raw_os_error(code.get().abs())),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    _ => {}
                }
            }
        }
    }
}
