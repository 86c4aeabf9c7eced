//! The status port. It answers each line with a line of JSON:
//!
//! `status` returns the counters; `reset` clears the gaps, and returns the counters afterwards. The
//! fields: `nonce` (drawn at the start, kept in memory only), `pages`, `passes`, `pages_written`,
//! `errors`, `pages_per_second`, `uptime_ns`, `max_gap_ns` (longest time between two readings of
//! the clock), `gaps` (how many were longer than 50 µs), `gaps_from_us` (these by length),
//! `recent_gaps` (the latest of them, with when they ended).
//!
//! The loop publishes the counters between two pages, at most a few milliseconds before the answer.
//! A reset takes effect after the gap in which it was answered, so that the new values do not
//! include the time to serve the request.

use crate::gaps::Gaps;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// Longest line a client may send.
const MAX_LINE: u64 = 256;

/// The loop's counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub nonce: u64,
    pub pages: usize,
    pub passes: u64,
    pub pages_written: u64,
    pub errors: u64,
    pub pages_per_second: u64,
    pub uptime_ns: u64,
    pub gaps: Gaps,
}

impl Counters {
    fn to_json(&self) -> String {
        let mut out = String::new();
        let Self { nonce, pages, passes, pages_written, errors, .. } = self;
        let Self { pages_per_second, uptime_ns, gaps, .. } = self;
        write!(
            out,
            "{{\"nonce\":\"{nonce:016x}\",\"pages\":{pages},\"passes\":{passes},\
             \"pages_written\":{pages_written},\"errors\":{errors},\
             \"pages_per_second\":{pages_per_second},\"uptime_ns\":{uptime_ns},"
        )
        .and_then(|()| gaps.write_json(&mut out))
        .expect("writing to a string cannot fail");
        out.push_str("}\n");
        out
    }
}

/// Where the loop publishes its counters, and finds requests.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    published: Condvar,
}

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    resets_wanted: u64,
    resets_done: u64,
}

impl Board {
    /// For the loop: publishes `counters`. Returns whether a client wants the gaps cleared: the
    /// published counters still have them, and the loop clears its own after it has let that
    /// client's thread answer.
    #[must_use]
    pub fn publish(&self, counters: &Counters) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.counters.clone_from(counters);
        let reset = state.resets_wanted != state.resets_done;
        if reset {
            state.counters.gaps = Gaps::default();
            state.resets_done = state.resets_wanted;
            self.published.notify_all();
        }
        reset
    }

    fn status(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).counters.to_json()
    }

    fn reset(&self) -> String {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.resets_wanted += 1;
        let mine = state.resets_wanted;
        let state = self.published.wait_while(state, |s| s.resets_done < mine);
        state.unwrap_or_else(PoisonError::into_inner).counters.to_json()
    }
}

/// Serves `board` on `port` from a thread of its own, and each client from another one.
pub fn serve(port: u16, board: Arc<Board>) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let port = listener.local_addr()?.port();
    thread::Builder::new().name("status".into()).spawn(move || {
        for stream in listener.incoming() {
            let board = Arc::clone(&board);
            let served = stream.and_then(|stream| {
                thread::Builder::new().name("client".into()).spawn(move || {
                    if let Err(error) = client(&stream, &board) {
                        eprintln!("dirtier: status client: {error}");
                    }
                })
            });
            if let Err(error) = served {
                eprintln!("dirtier: status port: {error}");
            }
        }
    })?;
    Ok(port)
}

fn client(stream: &TcpStream, board: &Board) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.by_ref().take(MAX_LINE).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match line.trim() {
            "status" => board.status(),
            "reset" => board.reset(),
            _ => "{\"error\":\"send `status` or `reset`\"}\n".to_owned(),
        };
        (&*stream).write_all(answer.as_bytes())?;
    }
}
