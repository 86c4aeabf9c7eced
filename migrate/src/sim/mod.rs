//! Two simulated hosts and a link that can be cut after any message. The tests check that no
//! failure breaks the rules.

mod guest;
mod hosts;
mod link;
mod onward;

use crate::source::Mode;
use guest::Guest;
use hosts::World;
use link::Cut;
use proptest::prelude::*;

const MODES: [Mode; 4] = [Mode::Auto, Mode::PreCopy, Mode::Hybrid, Mode::StopAndCopy];

/// Every mode, with the commit sent after the last pages or together with them.
fn ways() -> impl Iterator<Item = (Mode, bool)> {
    MODES.into_iter().flat_map(|mode| [(mode, false), (mode, true)])
}

/// Most steps of a simulation. A move needs far fewer: reaching the limit means that a state
/// machine loops.
const STEPS_MAX: usize = 10_000;

fn run(world: &mut World) {
    for _ in 0..STEPS_MAX {
        if !world.step() {
            return;
        }
    }
    panic!("the move does not end");
}

/// Checks that exactly one side runs, that it is the source if nothing was committed, and that its
/// memory is the guest's.
fn check(world: &World, what: &str) {
    let (source, destination) = (world.source_runs(), world.destination_runs());
    assert!(!(source && destination), "{what}: two run");
    assert!(source || destination, "{what}: none runs");
    assert!(
        world.committed() || source,
        "{what}: nothing was committed, and the source does not run"
    );
    assert!(!world.lacks(), "{what}: pages are missing for good");
    world.check_memory(what);
}

#[test]
fn an_undisturbed_move_arrives_whole() {
    for (mode, together) in ways() {
        let mut world = World::new(Guest::busy(1), mode, together, &[]);
        run(&mut world);
        assert!(world.destination_runs() && !world.source_runs());
        check(&world, "undisturbed");
        let report = world.report().expect("a report");
        assert_eq!((report.brownout_ns, report.brownout_over), (Some(1_000_000), true));
        assert_eq!((report.brownout_page_faults, report.brownout_lost_ns), (7, 50_000));
        let (blackout, phases) = (report.blackout_ns.unwrap(), report.phases.unwrap());
        assert!(blackout > 0 && report.total_ns >= blackout);
        assert!(report.apply_ns.is_some() && report.run_ns.is_some());
        assert!(report.pages_dont_care > 0 && report.pages_dont_care <= 10, "{report:?}");
        assert_eq!(report.rounds > 0, mode != Mode::StopAndCopy);
        let follows = matches!(mode, Mode::Auto | Mode::Hybrid);
        assert_eq!(report.pages_following > 0, follows, "{mode:?}");
        assert!(
            report.pages_waited_for.is_some_and(|n| follows == (n > 0)),
            "{mode:?}: the guest waited for no page"
        );
        assert!(!follows || world.touched() > 0, "the guest ran");
        assert_eq!(
            blackout,
            phases.quiesce_ns
                + phases.last_pages_and_state_ns
                + phases.transfer_and_apply_ns
                + phases.commit_and_run_ns
        );
    }
}

/// Checks the report of a successful move, also where `Running` was lost. Returns whether it was.
fn reports(world: &World, mode: Mode, what: &str) -> bool {
    let report = world.report().unwrap_or_else(|| panic!("{what}: no report"));
    let heard = report.blackout_ns.is_some();
    let known = [report.phases.is_some(), report.apply_ns.is_some(), report.run_ns.is_some()];
    assert_eq!(known, [heard; 3], "{what}: {report:?}");
    let follows = report.pages_following > 0;
    assert!(!matches!(mode, Mode::Hybrid) || follows, "{what}: {report:?}");
    assert_eq!(report.following_ns > 0, follows, "{what}: {report:?}");
    assert!(report.following_ns < report.total_ns, "{what}: {report:?}");
    !heard
}

/// Cuts the link after every message in turn, with the message delivered and with it lost.
#[test]
fn a_link_cut_after_any_message_leaves_one_running() {
    for (mode, together) in ways() {
        let messages = {
            let mut world = World::new(Guest::busy(1), mode, together, &[]);
            run(&mut world);
            world.messages()
        };
        assert!(messages > 15, "a whole move has more messages: {messages}");
        let mut unheard = 0;
        for after in 0..messages {
            for lost in [false, true] {
                let what =
                    format!("{mode:?}, together: {together}, cut at message {after}, lost: {lost}");
                let mut world = World::new(Guest::busy(1), mode, together, &[Cut { after, lost }]);
                run(&mut world);
                check(&world, &what);
                if world.destination_runs() {
                    unheard += usize::from(reports(&world, mode, &what));
                }
                if world.source_runs() {
                    world.try_again();
                    run(&mut world);
                    assert!(world.destination_runs(), "{what}: the next try failed");
                    check(&world, &format!("{what}, tried again"));
                }
            }
        }
        assert!(unheard > 0, "{mode:?}, together: {together}: `Running` was never lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any guest, several cuts, several tries.
    #[test]
    fn any_number_of_cuts(
        seed: u64,
        mode in prop::sample::select(MODES.to_vec()),
        together: bool,
        cuts in prop::collection::vec((0_usize..60, any::<bool>()), 1..8),
    ) {
        let cuts: Vec<_> = cuts.into_iter().map(|(after, lost)| Cut { after, lost }).collect();
        let mut world = World::new(Guest::busy(seed), mode, together, &cuts);
        for _ in 0..=cuts.len() {
            run(&mut world);
            check(&world, "several cuts");
            if world.destination_runs() {
                return Ok(());
            }
            world.try_again();
        }
        prop_assert!(false, "more tries failed than there were cuts");
    }
}
