//! What a program can set on a socket.

/// Options of any socket, as set or at their defaults.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest wait of a receiving call, in nanoseconds.
    pub receive_timeout: Option<u64>,
    /// Longest wait of a sending call, in nanoseconds.
    pub send_timeout: Option<u64>,
    /// The address may be shared.
    pub reuse_address: bool,
    /// Datagrams may go to broadcast addresses. Remembered only: they always may.
    pub broadcast: bool,
    /// Small segments are not held back.
    pub no_delay: bool,
    /// An idle connection is probed.
    pub keep_alive: bool,
    /// Seconds that close lingers; 0 resets the connection.
    pub linger: Option<u32>,
    /// Time to live of packets sent.
    pub ttl: u8,
    /// Time to live of multicast packets sent. Remembered only.
    pub multicast_ttl: u8,
    /// Multicast packets come back to this guest. Remembered only.
    pub multicast_loop: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            receive_timeout: None,
            send_timeout: None,
            reuse_address: false,
            broadcast: false,
            no_delay: false,
            keep_alive: false,
            linger: None,
            ttl: 64,
            multicast_ttl: 1,
            multicast_loop: true,
        }
    }
}
