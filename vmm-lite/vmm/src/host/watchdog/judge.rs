//! Decides which threads stall, from consecutive looks. It has no clock and no threads.

use super::Look;
use std::time::{Duration, Instant};

/// What has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A thread stalls, and has since this instant at least.
    Stalls(Look, Instant),
    /// It does not stall any more.
    Over(Look, Instant),
}

#[derive(Debug)]
struct Track {
    look: Look,
    since: Instant,
    stalls: bool,
}

/// Remembers previous looks.
#[derive(Debug)]
pub(super) struct Judge {
    limit: Duration,
    last: Option<Instant>,
    tracks: Vec<Track>,
}

impl Judge {
    pub fn new(limit: Duration) -> Self {
        Self { limit, last: None, tracks: Vec::new() }
    }

    /// The interval between looks.
    pub fn period(&self) -> Duration {
        self.limit / 5
    }

    /// Whether a thread stalls.
    pub fn any_stalls(&self) -> bool {
        self.tracks.iter().any(|track| track.stalls)
    }

    /// The watchdog paused on purpose: the pause does not count as stall time.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Evaluates what is owed at this time.
    pub fn look(&mut self, now: Instant, looks: Vec<Look>) -> Vec<Event> {
        let mut events = Vec::new();
        // A watchdog that was not scheduled in time cannot tell whether others were slow.
        let gap = self.last.is_none_or(|last| now - last > 2 * self.period());
        self.last = Some(now);
        let mut tracks = Vec::with_capacity(looks.len());
        for look in looks {
            let known = self.tracks.iter().position(|track| same(&track.look, &look));
            let known = known.map(|at| self.tracks.swap_remove(at));
            let mut track = match known {
                Some(track) if track.look.progress == look.progress => track,
                Some(Track { look, since, stalls: true }) => {
                    events.push(Event::Over(look.clone(), since));
                    Track { look, since: now, stalls: false }
                }
                _ => Track { look: look.clone(), since: now, stalls: false },
            };
            track.look = look;
            if gap && !track.stalls {
                track.since = now;
            }
            if !track.stalls && now - track.since >= self.limit {
                track.stalls = true;
                events.push(Event::Stalls(track.look.clone(), track.since));
            }
            tracks.push(track);
        }
        let over = self.tracks.drain(..).filter(|track| track.stalls);
        events.extend(over.map(|track| Event::Over(track.look, track.since)));
        self.tracks = tracks;
        events
    }
}

/// Whether both are of the same thread and the same work.
fn same(a: &Look, b: &Look) -> bool {
    (a.thread, a.tid, a.doing) == (b.thread, b.tid, b.doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn look(tid: i32, progress: u64) -> Look {
        Look { thread: "control", tid, doing: "serves `stats`", progress }
    }

    fn second() -> Duration {
        Judge::new(LIMIT).period()
    }

    #[test]
    fn a_stall_is_reported_once_and_so_is_its_end() {
        let begin = Instant::now();
        let mut judge = Judge::new(LIMIT);
        let at = |n: u32| begin + n * second();
        for n in 0..5 {
            assert_eq!(judge.look(at(n), vec![look(1, 7)]), []);
        }
        assert_eq!(judge.look(at(5), vec![look(1, 7)]), [Event::Stalls(look(1, 7), begin)]);
        assert_eq!(judge.look(at(6), vec![look(1, 7)]), []);
        assert!(judge.any_stalls());
        // It ends when the thread progresses, or has nothing to do any more.
        let mut other = Judge { limit: LIMIT, last: judge.last, tracks: Vec::new() };
        other.tracks.push(Track { look: look(1, 7), since: begin, stalls: true });
        assert_eq!(judge.look(at(7), vec![look(1, 8)]), [Event::Over(look(1, 7), begin)]);
        assert_eq!(other.look(at(7), vec![]), [Event::Over(look(1, 7), begin)]);
        assert!(!judge.any_stalls() && !other.any_stalls());
        // With each step a thread gets the full limit again.
        for n in 8..12 {
            assert_eq!(judge.look(at(n), vec![look(1, 8)]), []);
        }
        assert_eq!(judge.look(at(12), vec![look(1, 8)]), [Event::Stalls(look(1, 8), at(7))]);
    }

    #[test]
    fn a_watchdog_that_was_not_scheduled_restarts_all_limits() {
        let begin = Instant::now();
        let mut judge = Judge::new(LIMIT);
        let mut at = begin;
        for _ in 0..100 {
            assert_eq!(judge.look(at, vec![look(1, 7)]), []);
            assert_eq!(judge.look(at + second(), vec![look(1, 7)]), []);
            // The process was stopped, for less than the limit or more.
            at += second() + 2 * second() + Duration::from_nanos(1);
        }
        // Or it slept because nothing was owed.
        let mut judge = Judge::new(LIMIT);
        for n in 0..100 {
            judge.forget();
            assert_eq!(judge.look(begin + n * second(), vec![look(1, 7)]), []);
        }
    }

    proptest! {
        /// With looks in time, a thread is reported as stalled exactly if it has owed the same work
        /// for as long as the limit without progress; and the report is withdrawn exactly when that
        /// ends.
        #[test]
        fn reports_match_what_the_threads_did(steps in prop::collection::vec(
            (0_u64..1_500, prop::option::weighted(0.9, 0_u64..2)), 1..200,
        )) {
            let begin = Instant::now();
            let (mut judge, mut now, mut progress) = (Judge::new(LIMIT), begin, 0);
            // The model, by the simplest rule: since when the look is the same.
            let (mut since, mut stalls): (Option<(u64, Instant)>, bool) = (None, false);
            for (ms, owes) in steps {
                now += Duration::from_millis(ms);
                let looks: Vec<_> = owes.map(|on| { progress += on; look(1,
                    progress) }).into_iter().collect();
                let events = judge.look(now, looks.clone());
                let mut expected = Vec::new();
                match (looks.first(), since) {
                    (Some(look), Some((before, at))) if look.progress == before => {
                        if !stalls && now - at >= LIMIT {
                            stalls = true;
                            expected.push(Event::Stalls(look.clone(), at));
                        }
                    }
                    (owed, before) => {
                        if let Some((progress, at)) = before.filter(|_| stalls) {
                            expected.push(Event::Over(look(1, progress), at));
                        }
                        stalls = false;
                        since = owed.map(|look| (look.progress, now));
                    }
                }
                prop_assert_eq!(events, expected);
                prop_assert_eq!(judge.any_stalls(), stalls);
            }
        }
    }
}
