//! Links whose messages keep their order and take a drawn time, and that lose all from a break on.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;

/// One direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// What was sent before is lost if it has not arrived.
    pub epoch: u32,
    pub up: bool,
    /// When the last message arrives.
    pub last: Duration,
}

/// All connections.
#[derive(Default, Debug)]
pub struct Net {
    ways: BTreeMap<(usize, usize), Way>,
    epoch: u32,
}

impl Net {
    pub fn connect(&mut self, one: usize, other: usize) {
        self.epoch += 1;
        let way = Way { epoch: self.epoch, up: true, last: Duration::ZERO };
        self.ways.extend([((one, other), way), ((other, one), way)]);
    }

    /// When something that is sent now arrives, and the connection that it is sent on.
    pub fn send(
        &mut self,
        way: (usize, usize),
        now: Duration,
        rng: &mut Rng,
    ) -> Option<(Duration, u32)> {
        let way = self.ways.get_mut(&way).filter(|way| way.up)?;
        let spike = if rng.u8(..) == 0 { 3000 } else { 0 };
        let delay = Duration::from_micros(rng.u64(20..120) + spike);
        way.last = (now + delay).max(way.last + Duration::from_nanos(1));
        Some((way.last, way.epoch))
    }

    pub fn arrives(&self, way: (usize, usize), epoch: u32) -> bool {
        self.ways.get(&way).is_some_and(|way| way.epoch == epoch)
    }

    /// The link breaks: what is in it is lost, and what is sent from now on.
    pub fn cut(&mut self, one: usize, other: usize) {
        for way in [(one, other), (other, one)] {
            self.ways.remove(&way);
        }
    }

    /// One end closes it: what it has sent before still arrives.
    pub fn close(&mut self, from: usize, to: usize) -> bool {
        let open = self.ways.get(&(from, to)).is_some_and(|way| way.up);
        self.ways.get_mut(&(from, to)).into_iter().for_each(|way| way.up = false);
        self.ways.remove(&(to, from));
        open
    }

    pub fn peers(&self, of: usize) -> Vec<usize> {
        self.ways.keys().filter(|(from, _)| *from == of).map(|(_, to)| *to).collect()
    }
}
