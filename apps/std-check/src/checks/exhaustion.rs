//! The end of memory and descriptors: refusals are errors, and everything works once resources are
//! freed.
//!
//! The last area: a failure here may leave no resources to run others with.

use super::tcp::{listen, pair};
use crate::check::{Outcome, failed, join};
use crate::{checks, ensure, ensure_eq};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::thread;

checks!["exhaustion": files, sockets, connections, memory, threads_after_memory];

/// As many as can be requested in reasonable time; most systems refuse earlier.
const MANY: usize = 3000;

fn files() -> Outcome {
    let dir = super::folders::TempDir::new("exhaustion")?;
    let path = dir.join("f");
    std::fs::write(&path, b"x")?;
    let open: Vec<File> = (0..MANY).map_while(|_| File::open(&path).ok()).collect();
    ensure!(open.len() >= 200, "only {} files could be opened", open.len());
    drop(open);
    ensure_eq!(std::fs::read(&path)?, b"x");
    Ok(())
}

fn sockets() -> Outcome {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let open: Vec<UdpSocket> = (0..MANY).map_while(|_| UdpSocket::bind(any).ok()).collect();
    ensure!(open.len() >= 200, "only {} sockets could be bound", open.len());
    drop(open);
    let (a, b) = (UdpSocket::bind(any)?, UdpSocket::bind(any)?);
    a.send_to(b"still works", b.local_addr()?)?;
    ensure_eq!(b.recv(&mut [0; 20])?, 11);
    Ok(())
}

fn connections() -> Outcome {
    let (listener, address) = listen()?;
    let mut pairs = Vec::new();
    while pairs.len() < MANY {
        let Ok(client) = TcpStream::connect(address) else { break };
        let Ok((server, _)) = listener.accept() else { break };
        pairs.push((client, server));
    }
    ensure!(pairs.len() >= 200, "only {} connections could be made", pairs.len());
    // Successful ones work, however near the end it is.
    for (client, server) in &mut pairs {
        client.write_all(b"ping")?;
        let mut buffer = [0; 4];
        server.read_exact(&mut buffer)?;
        ensure_eq!(&buffer, b"ping");
    }
    drop((pairs, listener));
    let (mut client, mut server) = pair()?;
    client.write_all(b"still works")?;
    server.read_exact(&mut [0; 11])?;
    Ok(())
}

/// Takes all available memory: only address space, on a system that commits late.
fn all_memory() -> Vec<Vec<u8>> {
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(200);
    let mut size = 1usize << 46;
    while size >= 1 << 16 {
        let mut block = Vec::new();
        if held.len() < held.capacity() && block.try_reserve_exact(size).is_ok() {
            held.push(block);
        } else {
            size /= 2;
        }
    }
    held
}

fn memory() -> Outcome {
    drop(all_memory());
    let mut block: Vec<u8> = Vec::new();
    block.try_reserve_exact(256 * 1024)?;
    block.resize(256 * 1024, 7);
    ensure!(block.iter().all(|&b| b == 7), "memory is not as written");
    Ok(())
}

fn threads_after_memory() -> Outcome {
    drop(all_memory());
    for n in 0..20 {
        let thread = thread::Builder::new().spawn(move || vec![n; 1000].len());
        let thread = thread.map_err(|e| failed(format_args!("thread {n} was not made: {e}")))?;
        ensure_eq!(join(thread)?, 1000);
    }
    Ok(())
}
