//! Sets of system calls, from which the filters are built.

use seccompiler::{
    BackendError, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompRule,
};
use std::collections::BTreeMap;

/// A condition on an argument. It compares the lower 32 bits: no argument that a filter checks has
/// more.
#[derive(Clone, Copy, Debug)]
pub struct Arg(u8, Op, u64);

/// The comparisons that the filters use.
#[derive(Clone, Copy, Debug)]
enum Op {
    Is,
    Masked(u64),
}

/// Argument number `n` is `value`.
pub const fn is(n: u8, value: u64) -> Arg {
    Arg(n, Op::Is, value & 0xffff_ffff)
}

/// The bits of `mask` in argument number `n` are `value`.
pub const fn masked(n: u8, mask: u64, value: u64) -> Arg {
    Arg(n, Op::Masked(mask & 0xffff_ffff), value)
}

/// System calls with the conditions under which they may be made.
#[derive(Debug, Default)]
pub struct Calls {
    /// No alternatives: the call is always allowed.
    calls: BTreeMap<i64, Vec<Vec<Arg>>>,
}

impl Calls {
    /// Allows these calls always.
    pub fn any(mut self, calls: &[i64]) -> Self {
        for &call in calls {
            self.calls.insert(call, Vec::new());
        }
        self
    }

    /// Allows this call when all of `args` hold, in addition to the alternatives that it has
    /// already.
    pub fn when(mut self, call: i64, args: &[Arg]) -> Self {
        match self.calls.get_mut(&call) {
            // The call is always allowed already.
            Some(alternatives) if alternatives.is_empty() => {}
            Some(alternatives) => alternatives.push(args.to_vec()),
            None => drop(self.calls.insert(call, vec![args.to_vec()])),
        }
        self
    }

    /// Allows this call when argument number `n` is one of `values`.
    pub fn with(self, call: i64, n: u8, values: &[u64]) -> Self {
        values.iter().fold(self, |calls, value| calls.when(call, &[is(n, *value)]))
    }

    /// Adds the calls of `other`.
    pub fn and(self, other: Self) -> Self {
        other.calls.into_iter().fold(self, |calls, (call, alternatives)| {
            if alternatives.is_empty() {
                return calls.any(&[call]);
            }
            alternatives.iter().fold(calls, |calls, args| calls.when(call, args))
        })
    }

    /// The form that the filter compiler takes.
    pub fn into_rules(self) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
        let condition = |Arg(n, op, value): Arg| {
            let op = match op {
                Op::Is => SeccompCmpOp::Eq,
                Op::Masked(mask) => SeccompCmpOp::MaskedEq(mask),
            };
            SeccompCondition::new(n, Dword, op, value)
        };
        let rule = |args: Vec<Arg>| {
            SeccompRule::new(args.into_iter().map(condition).collect::<Result<_, _>>()?)
        };
        self.calls
            .into_iter()
            .map(|(call, alternatives)| {
                Ok((call, alternatives.into_iter().map(rule).collect::<Result<_, _>>()?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_wins_over_sometimes_in_either_order() {
        let always = || Calls::default().any(&[1]);
        let sometimes = || Calls::default().with(1, 0, &[7, 8]);
        assert_eq!(sometimes().calls[&1].len(), 2);
        assert!(always().and(sometimes()).calls[&1].is_empty());
        assert!(sometimes().and(always()).calls[&1].is_empty());
        assert_eq!(sometimes().and(Calls::default().with(1, 1, &[9])).calls[&1].len(), 3);
    }
}
