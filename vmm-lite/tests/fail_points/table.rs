//! What fails where, and what is known of that place.

use Side::{Destination, Source};
use When::{After, Before, Either};
use vmm::fail_point::{ACTIONS, Action, POINTS};

/// The side of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Source,
    Destination,
}

/// Whether the source has sent its commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    Before,
    /// It may be about to, or have just sent it.
    Either,
    After,
}

/// A place in the course of a move.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub point: &'static str,
    pub side: Side,
    pub when: When,
    /// Only with post-copy.
    pub hybrid: bool,
    /// Only where the destination confirms the state before the commit: in stop-and-copy moves, as
    /// much goes with the state.
    pub confirmed: bool,
    /// What must fail first for a process to get there.
    pub first: Option<(Side, &'static str)>,
    /// Whether there is a connection to cut.
    pub linked: bool,
}

const fn row(side: Side, when: When, point: &'static str) -> Row {
    Row { point, side, when, hybrid: false, confirmed: false, first: None, linked: true }
}

impl Row {
    const fn hybrid(self) -> Self {
        Self { hybrid: true, ..self }
    }

    const fn confirmed(self) -> Self {
        Self { confirmed: true, ..self }
    }

    const fn after(self, side: Side, choice: &'static str) -> Self {
        Self { first: Some((side, choice)), ..self }
    }

    const fn unlinked(self) -> Self {
        Self { linked: false, ..self }
    }

    /// What can go wrong there.
    pub fn actions(&self) -> impl Iterator<Item = Action> {
        let errs = POINTS.iter().any(|point| point.name == self.point && point.errs);
        let linked = self.linked;
        ACTIONS.into_iter().map(|(_, action)| action).filter(move |action| match action {
            Action::Kill | Action::Stop => true,
            Action::Cut => linked,
            Action::Error => errs,
            // That is for tests that inspect the VM meanwhile.
            Action::Hold => false,
        })
    }

    /// How often a move gets there at least.
    pub fn times(&self) -> u32 {
        match self.point {
            "source.in-round" => 2,
            "source.following" | "destination.filling" => 4,
            "destination.in-round" => 4,
            _ => 1,
        }
    }
}

/// The course of a move, and its failures.
pub const ROWS: &[Row] = &[
    row(Source, Before, "source.connected"),
    row(Source, Before, "source.offered"),
    row(Source, Before, "source.logging"),
    row(Source, Before, "source.in-round"),
    row(Source, Before, "source.announced").hybrid(),
    row(Source, Before, "vm.stopping"),
    row(Source, Before, "source.stopped"),
    row(Source, Before, "source.captured"),
    row(Source, Before, "source.last-half-sent"),
    row(Source, Before, "source.state-sent").confirmed(),
    row(Source, Before, "source.fenced"),
    row(Source, After, "source.committed"),
    row(Source, After, "source.handing-on"),
    row(Source, After, "source.following").hybrid(),
    row(Source, After, "source.asking").after(Destination, "destination.commit-came=cut"),
    row(Source, Before, "source.resuming").after(Destination, "vm.half-applied=error").unlinked(),
    row(Source, Before, "source.resuming").after(Source, "source.fenced=cut").unlinked(),
    row(Source, After, "source.moved").unlinked(),
    row(Destination, Before, "destination.greeted"),
    row(Destination, Before, "destination.prepared"),
    row(Destination, Before, "destination.in-round"),
    row(Destination, Before, "destination.forgot").hybrid(),
    // The commit has arrived with the state.
    row(Destination, Either, "vm.half-applied"),
    row(Destination, Either, "destination.applied"),
    row(Destination, Before, "vm.half-applied").confirmed(),
    row(Destination, Before, "destination.applied").confirmed(),
    row(Destination, Either, "destination.ready").confirmed(),
    row(Destination, Before, "destination.discarded")
        .after(Source, "source.stopped=error")
        .unlinked(),
    row(Destination, After, "destination.commit-came"),
    row(Destination, After, "destination.written-down"),
    row(Destination, After, "destination.running"),
    row(Destination, After, "destination.announced"),
    row(Destination, After, "destination.filling").hybrid(),
    row(Destination, After, "destination.rejoined").hybrid().after(Source, "source.following=cut"),
    row(Destination, After, "destination.whole").hybrid().unlinked(),
];

/// One run of a row.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub row: &'static Row,
    /// With post-copy: the guest writes all of its memory all the time.
    pub hybrid: bool,
    /// In mode auto.
    pub auto: bool,
    pub action: Action,
    /// The number of the occurrence at which it fails.
    pub nth: u32,
    pub encrypted: bool,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { row, action, nth, .. } = self;
        let how = if self.encrypted { "encrypted" } else { "plaintext" };
        write!(f, "{} {how} move, {action:?} at {}@{nth}", self.mode(), row.point)?;
        row.first.map_or(Ok(()), |(_, first)| write!(f, " after {first}"))
    }
}

impl Case {
    pub fn mode(&self) -> &'static str {
        match (self.auto, self.hybrid, self.row.confirmed) {
            (true, ..) => "auto",
            (_, true, _) => "hybrid",
            (.., true) => "stop-and-copy",
            _ => "pre-copy",
        }
    }

    /// The options for the transport of both sides.
    pub fn transport(&self) -> &'static [&'static str] {
        if self.encrypted { &[] } else { &["--plaintext"] }
    }

    /// Whether the guest waits for memory that only the source has, which does not return in time.
    pub fn is_lost(&self) -> bool {
        let Row { side, when, point, .. } = *self.row;
        let away = side == Source && matches!(self.action, Action::Kill | Action::Stop);
        self.hybrid && when == After && away && point != "source.moved"
    }

    /// How long the source may be away: no longer than necessary for one that does not return, and
    /// long enough for one that does. A link that the destination itself breaks is noticed before
    /// the source's own timeout ends, which is 0.9 s.
    pub fn lost_after(&self) -> &'static str {
        match self.action {
            _ if self.is_lost() => "500ms",
            Action::Error => "800ms",
            _ => "20s",
        }
    }

    /// What the processes of a side do, as a value for their environment.
    pub fn choice(&self, side: Side) -> String {
        let word = ACTIONS.iter().find(|(_, action)| *action == self.action).expect("all named").0;
        let here = format!("{}={word}@{}", self.row.point, self.nth);
        let first = self.row.first.filter(|(of, _)| *of == side).map(|(_, first)| first.to_owned());
        let main = (self.row.side == side).then_some(here);
        first.into_iter().chain(main).collect::<Vec<_>>().join(",")
    }
}

/// Everything that can go wrong, once; and again in mode auto, the default, where that is quick and
/// the result is known.
pub fn cases() -> Vec<Case> {
    let modes = |row: &Row| match (row.hybrid, row.confirmed) {
        (true, _) => &[(true, false)][..],
        (_, true) => &[(false, false)],
        _ => &[(false, false), (true, false), (false, true)],
    };
    ROWS.iter()
        .flat_map(|row| modes(row).iter().map(move |mode| (row, *mode)))
        .flat_map(|(row, mode)| row.actions().map(move |action| (row, mode, action)))
        .filter(|(row, (_, auto), action)| !auto || suits_auto(row, *action))
        .enumerate()
        .map(|(n, (row, (hybrid, auto), action))| {
            // In the middle of repeated occurrences; the two transports alternate.
            let (nth, encrypted) = (row.times().div_ceil(2), n % 2 == 0);
            Case { row, hybrid, auto, action, nth, encrypted }
        })
        .collect()
}

/// Whether there is post-copy depends on how busy the host is, and so does the outcome when its
/// source dies after the commit. And a frozen process has to be waited for.
fn suits_auto(row: &Row, action: Action) -> bool {
    let source_goes = row.side == Source && row.when == After && action == Action::Kill;
    action != Action::Stop && (!source_goes || row.point == "source.moved")
}
