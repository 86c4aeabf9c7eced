//! What an observer outside of the set sees, and what it holds against it.

use super::world::{Flaw, Role, World};

impl World {
    /// Output of member `n` leaves its host, up to this record.
    pub fn release(&mut self, n: usize, up_to: u64) {
        let Some(it) = &mut self.members[n] else { return };
        let (from, up_to) = (it.gone_out, up_to as usize);
        it.gone_out = it.gone_out.max(up_to);
        let Some(out) = it.log.get(..up_to).map(<[_]>::to_vec) else {
            return self.flawed(Flaw::Driver("output of records that there are none of"));
        };
        if from > self.seen.len() {
            return self.flawed(Flaw::Lost);
        }
        for (at, entry) in out.iter().enumerate().skip(from) {
            match self.seen.get(at) {
                // A second time, after a takeover: it must be the same.
                Some(seen) if seen != entry => return self.flawed(Flaw::Two),
                Some(_) => {}
                None => self.seen.push(*entry),
            }
        }
        // A member that is active in a later term goes on from this output.
        let term = self.term(n);
        let later = (0..self.members.len()).filter(|&m| m != n && self.term(m) > term);
        let has = |m: usize| self.get(m).is_some_and(|it| it.log.get(..up_to) == Some(&out[..]));
        if later.into_iter().any(|m| !has(m)) {
            self.flawed(Flaw::Two);
        }
    }

    /// The term that a member is active in; 0 if it is not.
    fn term(&self, n: usize) -> u64 {
        let primary = self.get(n).and_then(|it| it.primary());
        primary.filter(|primary| primary.active()).map_or(0, |primary| primary.term().0)
    }

    /// A member is active in its term.
    pub fn acts_in_term(&mut self, n: usize) {
        let Some(Role::Primary(machine)) = self.get(n).map(|it| &it.role) else { return };
        let term = machine.term();
        if machine.active() && term.0 > 0 && *self.active.entry(term).or_insert(n) != n {
            self.flawed(Flaw::Term);
        }
    }

    /// All output that was seen is of records that every member has that may take over.
    pub fn stands_behind(&self, executed: bool) -> bool {
        self.named().filter(|(_, it)| it.there()).all(|(_, it)| {
            let has = if executed { it.executed } else { it.log.len() };
            it.log.get(..self.seen.len().min(has)) == Some(&self.seen[..])
        })
    }
}
