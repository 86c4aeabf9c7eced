//! Moments of a replayed guest, exact to the instruction.

/// A moment of a guest that is replayed: each replay of the same log comes by it, once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Position of the last record that was executed.
    pub record: u64,
    /// What the guest has done since, in order.
    pub path: Vec<Leg>,
}

/// What a guest does between two exits, in a way that can be repeated without counting each
/// instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leg {
    /// It executes this many instructions. An iteration of a repeated instruction is one.
    Steps(u64),
    /// It comes to the instruction at `address` for the `times`th time, 1 being the next.
    To {
        /// Address of an instruction.
        address: u64,
        /// How many times, at least 1.
        times: u64,
    },
}

impl Moment {
    /// Right after the record at `position`: the guest has not run since.
    #[must_use]
    pub fn after(position: u64) -> Self {
        Self { record: position, path: Vec::new() }
    }

    /// Whether the guest has not run since the record.
    #[must_use]
    pub fn is_at_record(&self) -> bool {
        self.path.is_empty()
    }

    /// The guest has gone on by this.
    pub fn go(&mut self, leg: Leg) {
        match (self.path.last_mut(), leg) {
            (Some(Leg::Steps(steps)), Leg::Steps(more)) => *steps += more,
            (Some(Leg::To { address, times }), Leg::To { address: to, times: more })
                if *address == to =>
            {
                *times += more;
            }
            _ => self.path.push(leg),
        }
    }

    /// The moment at which the guest has gone on by this.
    #[must_use]
    pub fn then(&self, leg: Leg) -> Self {
        let mut then = self.clone();
        then.go(leg);
        then
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legs_of_one_kind_are_one() {
        let to = |address, times| Leg::To { address, times };
        let mut moment = Moment::after(7);
        assert!(moment.is_at_record());
        for leg in [Leg::Steps(1), Leg::Steps(2), to(8, 1), to(8, 2), to(9, 1), Leg::Steps(1)] {
            moment.go(leg);
        }
        assert_eq!(moment.path, [Leg::Steps(3), to(8, 3), to(9, 1), Leg::Steps(1)]);
    }
}
