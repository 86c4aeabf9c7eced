//! The plain copy of memory from one host to the other.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use vm_memory::ReadVolatile;
use vmm::memory::{GuestRam, Writable};
use vmm_lite_lab::{Error, Result, site::Site};

use super::{
    Transport,
    tls::{Reader, Writer},
};

/// Most bytes for one system call.
const PIECE: usize = 256 << 10;

/// The memory that is read into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Memory that was never touched.
    Fresh,
    /// Memory that is resident.
    Touched,
}

/// Memory on host 0, to be copied to host 1.
pub struct PlainCopy<'s> {
    site: &'s Site,
    from: Vec<u8>,
}

impl<'s> PlainCopy<'s> {
    /// Memory of `size` bytes.
    pub fn new(site: &'s Site, size: u64) -> Result<Self> {
        let mut from = vec![0; size as usize];
        fastrand::Rng::with_seed(1).fill(&mut from);
        Ok(Self { site, from })
    }

    /// Copies it. Returns the time from the first byte until the other side has confirmed all, ns.
    pub fn time(&mut self, transport: Transport, into: Memory) -> Result<u64> {
        let (mut writes, reads) = self.connect()?;
        let from = &self.from[..];
        let mut to = memory(from.len() as u64, into)?;
        let ns = thread::scope(|scope| {
            let read = scope.spawn(|| read(reads, transport, to.writable()));
            let wrote = write(&mut writes, transport, from);
            // A waiting reader learns that nothing more comes.
            let wrote = wrote.inspect_err(|_| drop(writes.shutdown(std::net::Shutdown::Both)));
            let read = read.join().expect("the reader does not panic");
            read.and(wrote)
        });
        let ns = ns.map_err(|source| Error::Io { what: "copy memory plainly".into(), source })?;
        let there = (0..from.len() as u64).step_by(4093 << 8).all(|at| {
            let mut byte = [0];
            to.read(at, &mut byte).is_ok() && byte[0] == from[at as usize]
        });
        if there {
            Ok(ns)
        } else {
            Err(Error::Protocol { what: "plain copy".into(), said: "other bytes came".into() })
        }
    }

    fn connect(&self) -> Result<(TcpStream, TcpStream)> {
        let [a, b] = &self.site.hosts;
        let ip = b.migration_ip.clone();
        let what = "connect both hosts for a plain copy";
        let io = |source| Error::Io { what: what.into(), source };
        let listener = b.ns.enter(move || TcpListener::bind((ip, 0)))?.map_err(io)?;
        let to = listener.local_addr().map_err(io)?;
        let stream = a.ns.enter(move || TcpStream::connect(to))?.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        Ok((stream, listener.accept().map_err(io)?.0))
    }
}

fn memory(size: u64, into: Memory) -> Result<GuestRam> {
    let failed = |e: vmm::memory::Error| Error::Protocol {
        what: "memory to copy into".into(),
        said: e.to_string(),
    };
    let mut ram = GuestRam::new(size).map_err(failed)?;
    if into == Memory::Touched {
        let memory = ram.writable();
        (0..memory.pages())
            .try_for_each(|page| memory.write_page(page, &[1; 4096]))
            .map_err(failed)?;
    }
    Ok(ram)
}

fn write(stream: &mut TcpStream, transport: Transport, from: &[u8]) -> io::Result<u64> {
    let mut tls = match transport {
        Transport::Tls => Some(Writer::new(stream)?),
        Transport::Plaintext => None,
    };
    // The reader is ready.
    stream.read_exact(&mut [0])?;
    let began = Instant::now();
    match &mut tls {
        Some(tls) => tls.write_all(stream, from)?,
        None => from.chunks(PIECE).try_for_each(|piece| stream.write_all(piece))?,
    }
    stream.read_exact(&mut [0])?;
    Ok(began.elapsed().as_nanos() as u64)
}

fn read(mut stream: TcpStream, transport: Transport, to: Writable<'_>) -> io::Result<()> {
    let tls = match transport {
        Transport::Tls => Some(Reader::new(&mut stream)?),
        Transport::Plaintext => None,
    };
    stream.write_all(&[1])?;
    let mut at = 0;
    if let Some(mut tls) = tls {
        while at < to.size() {
            tls.read(&mut stream, |bytes| {
                to.write(at, bytes).map_err(io::Error::other)?;
                at += bytes.len() as u64;
                Ok(())
            })?;
        }
    } else {
        while at < to.size() {
            let room = PIECE.min((to.size() - at) as usize);
            let mut room = to.slice(at, room).map_err(io::Error::other)?;
            match stream.read_volatile(&mut room).map_err(io::Error::other)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => at += n as u64,
            }
        }
    }
    stream.write_all(&[1])
}
