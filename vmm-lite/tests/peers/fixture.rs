//! A fixture: two hosts, a VM on the first that is to move to the second, and connections to the
//! latter.

use migrate::wire::Message;
use std::{io::Read, net::TcpStream, sync::Arc};
use vmm::vm::CallOff;
use vmm::{
    identity::{HostIdentity, IdentityDir, TrustStore, Trusted},
    migration::{
        connection::{Connection, Incoming, Transport},
        tls::Credentials,
    },
};
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::{Host, Site},
    vmm::{TIMEOUT, Vmm},
};

pub const AT: &str = "10.9.0.2:7000";

pub struct Fixture {
    pub site: Site,
    pub vmms: [Vmm; 2],
    pub vm: Process,
}

/// A VM on the first host, ready to move.
pub fn fixture(test: &str) -> Option<Fixture> {
    let site = Site::for_test(test)?;
    let vmms = Vmm::on_both(&site).unwrap();
    let image = image("dirtier").unwrap();
    let args = ["--name", "d", "--memory", "16M", "--", "--pages", "64"];
    let vm = vmms[0].run(&image, &args).unwrap();
    vm.wait_for_line("nonce", TIMEOUT).unwrap();
    Some(Fixture { site, vmms, vm })
}

impl Fixture {
    /// The listener still receives a VM from the host that it trusts.
    pub fn moves(&mut self, destination: &Process) {
        self.vmms[0].migrate("d", &self.vmms[1].url(7000)).unwrap();
        assert!(self.vm.wait(TIMEOUT).unwrap().success(), "{}", self.vm.output());
        let line = destination.wait_for_line("passes=", TIMEOUT).unwrap();
        assert!(line.contains("errors=0"), "{line}");
    }

    /// Connects from the first host.
    pub fn connect(&self) -> TcpStream {
        connect(&self.site.hosts[0])
    }
}

pub fn connect(from: &Host) -> TcpStream {
    let stream = from.ns.enter(|| TcpStream::connect(AT)).unwrap().unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Whether the other side ends the connection before the timeout.
pub fn ended(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Makes the destination trust the first host's present identity, as `name`.
pub fn trust(of: &Vmm, who: &HostIdentity, name: &str) {
    let dir = IdentityDir::find(Some(of.identity()));
    let host =
        Trusted { key: who.public(), name: name.into(), send: true, receive: true, at: Vec::new() };
    dir.change_trusted(|store| store.add(host)).unwrap();
}

/// A third host, as the library makes connections.
pub fn other_host(to: &Vmm, identity: HostIdentity) -> Transport {
    let there = IdentityDir::find(Some(to.identity())).load().unwrap().public();
    let mut trusted = TrustStore::default();
    trusted
        .add(Trusted {
            key: there,
            name: "there".into(),
            send: true,
            receive: true,
            at: Vec::new(),
        })
        .unwrap();
    Transport::Tls(Credentials::with_key(&identity, Arc::new(trusted)).unwrap())
}

/// The destination's answer to a peer that begins like this.
pub fn greet(from: &Host, transport: Transport, first: Message) -> Result<Message, String> {
    from.ns
        .enter(move || {
            let to = format!("tcp://{AT}").parse().unwrap();
            let mut connection = Connection::open(&to, &transport, None, TIMEOUT, &CallOff::NEVER)
                .map_err(|e| e.to_string())?;
            connection.send(&first).map_err(|e| e.to_string())?;
            match connection.receive(0).map_err(|e| e.to_string())? {
                Incoming::Message(message) => Ok(message),
                Incoming::Pages(_) => panic!("pages"),
            }
        })
        .unwrap()
}
