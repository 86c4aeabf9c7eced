//! A guest that gets other addresses: a clone, or one that was restored.

use super::{
    Error, LinkId, SocketId,
    stack::{Socket, Stack},
    tcp::{Phase, Role, Tcp},
};
use crate::drivers::NetDevice;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};

impl<D: NetDevice> Stack<D> {
    /// Uses new addresses of the network device; what is not given stays. With another IP address
    /// the connections over the device are dropped and their peers are sent nothing: those are
    /// connected to the guest that this one is a copy of. A program finds them reset. What is bound
    /// to the old address itself stays so, and receives nothing any more.
    pub fn readdress(
        &mut self,
        mac: [u8; 6],
        ip: Option<(Ipv4Addr, u8)>,
        gateway: Option<Ipv4Addr>,
    ) {
        let Some(ethernet) = &mut self.links.ethernet else { return };
        let iface = ethernet.iface();
        iface.set_hardware_addr(HardwareAddress::Ethernet(EthernetAddress(mac)));
        if let Some(gateway) = gateway {
            // Replaces the one there is, for which there is room.
            let _ = iface.routes_mut().add_default_ipv4_route(gateway);
        }
        let Some((ip, prefix)) = ip else { return };
        iface.update_ip_addrs(|addresses| {
            addresses.clear();
            let cidr = IpCidr::Ipv4(Ipv4Cidr::new(ip, prefix.min(32)));
            addresses.push(cidr).expect("the first address");
        });
        if self.ip.replace(ip) != Some(ip) {
            self.give_up_connections();
            self.drop_unsent();
        }
    }

    /// Drops datagrams that wait to be sent: they have the old address as their source.
    fn drop_unsent(&mut self) {
        let ids: Vec<SocketId> = self.sockets.iter().map(|(n, _)| SocketId(n)).collect();
        for id in ids {
            if let Some(Socket::Udp(udp)) = self.sockets.get_mut(id.0) {
                udp.drop_unsent(LinkId::Ethernet);
                self.touch(id);
                self.forget_if_sent(id);
            }
        }
    }

    fn give_up_connections(&mut self) {
        let ids: Vec<SocketId> = self.connections.values().copied().collect();
        for id in ids {
            let Some(connection) = self.connection(id) else { continue };
            if connection.link != LinkId::Ethernet {
                continue;
            }
            match connection.phase {
                Phase::Connecting | Phase::Open => {
                    self.connection_failed(id, Error::ConnectionReset);
                }
                Phase::HalfOpen(_) | Phase::Orphan => self.remove_connection(id),
                Phase::Queued(listener) => {
                    if let Some(Socket::Tcp(Tcp { role: Role::Listener(role), .. })) =
                        self.sockets.get_mut(listener.0)
                    {
                        role.queue.retain(|waiting| *waiting != id);
                    }
                    self.remove_connection(id);
                }
            }
        }
    }
}
