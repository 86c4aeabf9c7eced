//! The packets of a VM that is replayed, as a capture file.

use crate::devices::{inputs::Traffic, net::backend::VNET_HEADER};
use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};
use std::{fmt, fs::File, io, io::BufWriter, time::Duration};

/// Writes a capture: Ethernet frames, with the guest's wall clock. Frames for which the guest or
/// its host leaves the checksum to the device have none.
pub struct Pcap {
    /// `None` after an error.
    to: Option<PcapWriter<BufWriter<File>>>,
    at: Duration,
}

impl fmt::Debug for Pcap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pcap").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Pcap {
    /// Writes to `file`.
    ///
    /// # Errors
    /// The host's error.
    pub fn new(file: File) -> io::Result<Self> {
        // A segment that the host splits later is one frame.
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            snaplen: 1 << 18,
            ts_resolution: pcap_file::TsResolution::NanoSecond,
            endianness: pcap_file::Endianness::Little,
            ..PcapHeader::default()
        };
        let to = PcapWriter::with_header(BufWriter::new(file), header);
        Ok(Self { to: Some(to.map_err(io::Error::other)?), at: Duration::ZERO })
    }

    fn write(&mut self, packet: &[u8]) {
        let Some(frame) = packet.get(VNET_HEADER..) else { return };
        let Some(to) = &mut self.to else { return };
        let packet = PcapPacket::new(self.at, frame.len() as u32, frame);
        if let Err(e) = to.write_packet(&packet) {
            tracing::error!("the capture ends here: {e}");
            self.to = None;
        }
    }
}

impl Traffic for Pcap {
    fn at(&mut self, _: u64, wall_ns: Option<u64>) {
        self.at = wall_ns.map_or(self.at, Duration::from_nanos);
    }

    fn sent(&mut self, packet: &[u8]) {
        self.write(packet);
    }

    fn received(&mut self, packet: &[u8]) {
        self.write(packet);
    }
}
