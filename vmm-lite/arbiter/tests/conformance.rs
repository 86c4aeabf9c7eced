//! What every arbiter promises, checked with each.

mod common;

use arbiter::{
    Arb, ArbiterClient, Error, MemberId, Outcome, SetId, Swap, Term, Version, in_thread,
};
use common::{LONG, first, random, record, version, win};
use std::{collections::HashMap, thread};

#[test]
fn file_arbiter_conforms() {
    let dir = tempfile::tempdir().unwrap();
    all(&format!("file:{}", dir.path().display()).parse().unwrap());
}

#[test]
fn etcd_with_one_member_conforms() {
    let Some(etcd) = common::etcd(1) else { return };
    all(&format!("etcd://{}", etcd.endpoints()).parse().unwrap());
}

#[test]
fn etcd_with_three_members_conforms() {
    let Some(etcd) = common::etcd(3) else { return };
    all(&format!("etcd://{}", etcd.endpoints()).parse().unwrap());
}

fn all(arb: &Arb) {
    let client = || in_thread(arb.clone()).unwrap();
    a_set_begins_without_a_record(&mut client());
    a_record_is_made_once(&mut client(), &mut client());
    a_swap_replaces_the_expected_version_only(&mut client(), &mut client());
    a_repeated_swap_has_one_effect(&mut client(), &mut client());
    a_removed_record_stays_removed(&mut client(), &mut client());
    an_invalid_record_is_refused(&mut client());
    members_are_present_while_they_run(arb);
    racing_members_win_each_term_once(arb);
}

fn a_set_begins_without_a_record(client: &mut ArbiterClient) {
    assert_eq!(client.read(SetId(random()), LONG), Ok(None));
}

fn a_record_is_made_once(one: &mut ArbiterClient, other: &mut ArbiterClient) {
    let first = first();
    let made = win(one, Version::NONE, first.clone());
    assert_ne!(made, Version::NONE);
    let again = Swap::new(Version::NONE, record(first.set, 1, MemberId(random()))).unwrap();
    let Ok(Outcome::Lost(Some(current))) = other.swap(&again, LONG) else { panic!("not lost") };
    assert_eq!((current.record, current.version), (first, made));
}

fn a_swap_replaces_the_expected_version_only(one: &mut ArbiterClient, other: &mut ArbiterClient) {
    let mut first = first();
    first.in_sync = vec![MemberId([1; 16]), MemberId([2; 16])];
    let made = win(one, Version::NONE, first.clone());
    let next = first.next(MemberId([1; 16]), [MemberId([2; 16])]);
    let taken = win(other, made, next.clone());
    assert_ne!(taken, made);
    // The old primary knows only the version before.
    let late = Swap::new(made, first.next(first.active, [])).unwrap();
    let Ok(Outcome::Lost(Some(current))) = one.swap(&late, LONG) else { panic!("not lost") };
    assert_eq!((current.record, current.version), (next.clone(), taken));
    assert_eq!(one.read(first.set, LONG).unwrap().unwrap().record, next);
    // Nor does a version count that never was.
    let wrong = Swap::new(Version(taken.0 + 1000), first.next(first.active, [])).unwrap();
    assert!(matches!(one.swap(&wrong, LONG), Ok(Outcome::Lost(Some(_)))));
}

fn a_repeated_swap_has_one_effect(one: &mut ArbiterClient, other: &mut ArbiterClient) {
    let first = first();
    let swap = Swap::new(Version::NONE, first.clone()).unwrap();
    let Ok(Outcome::Won(made)) = one.swap(&swap, LONG) else { panic!("not won") };
    for client in [&mut *one, &mut *other] {
        assert_eq!(client.swap(&swap, LONG), Ok(Outcome::Won(made)));
        assert_eq!(version(client, first.set), made);
    }
    let next = Swap::new(made, first.next(first.active, [])).unwrap();
    let Ok(Outcome::Won(newer)) = one.swap(&next, LONG) else { panic!("not won") };
    assert_eq!(one.swap(&next, LONG), Ok(Outcome::Won(newer)));
    // The record of the first swap is no longer there.
    assert!(matches!(other.swap(&swap, LONG), Ok(Outcome::Lost(Some(_)))));
}

fn a_removed_record_stays_removed(one: &mut ArbiterClient, other: &mut ArbiterClient) {
    let first = first();
    let made = win(one, Version::NONE, first.clone());
    let next = win(one, made, first.next(first.active, []));
    assert!(matches!(other.forget(first.set, made, LONG), Ok(Outcome::Lost(Some(_)))));
    assert_eq!(version(one, first.set), next);
    assert_eq!(other.forget(first.set, next, LONG), Ok(Outcome::Won(next)));
    assert_eq!(one.read(first.set, LONG), Ok(None));
    assert_eq!(one.forget(first.set, next, LONG), Ok(Outcome::Lost(None)));
    for stale in [made, next] {
        let swap = Swap::new(stale, first.next(first.active, [])).unwrap();
        assert_eq!(one.swap(&swap, LONG), Ok(Outcome::Lost(None)));
    }
    // A new record does not have a version of an old one.
    let mut made_again = win(one, Version::NONE, first.clone());
    for _ in 0..3 {
        assert!(made_again != made && made_again != next);
        made_again = win(one, made_again, first.clone());
    }
}

fn an_invalid_record_is_refused(client: &mut ArbiterClient) {
    let mut twice = first();
    twice.in_sync = vec![twice.active];
    let swap = Swap::new(Version::NONE, twice).unwrap();
    assert!(matches!(client.swap(&swap, LONG), Err(Error::Refused(_))));
    assert_eq!(client.read(swap.set(), LONG), Ok(None));
}

fn members_are_present_while_they_run(arb: &Arb) {
    let (set, members) = (SetId(random()), [MemberId(random()), MemberId(random())]);
    let [mut one, mut other] = [(); 2].map(|()| in_thread(arb.clone()).unwrap());
    assert_eq!(one.present(set, &members, LONG), Ok(vec![]));
    one.announce(set, members[0], LONG).unwrap();
    one.announce(set, members[0], LONG).unwrap();
    other.announce(set, members[1], LONG).unwrap();
    assert_eq!(one.present(set, &members, LONG), Ok(members.to_vec()));
    assert_eq!(other.present(set, &members[1..], LONG), Ok(members[1..].to_vec()));
    assert_eq!(other.present(SetId(random()), &members, LONG), Ok(vec![]));
}

/// Members take a set from each other as fast as they can.
fn racing_members_win_each_term_once(arb: &Arb) {
    const MEMBERS: usize = 6;
    const TERMS: u64 = 60;
    let first = first();
    let set = first.set;
    win(&mut in_thread(arb.clone()).unwrap(), Version::NONE, first);
    let race = || {
        let arb = arb.clone();
        thread::spawn(move || {
            let (mut client, member, mut won) =
                (in_thread(arb).unwrap(), MemberId(random()), vec![]);
            loop {
                let current = client.read(set, LONG).unwrap().unwrap();
                if current.record.term.0 >= TERMS {
                    return (member, won);
                }
                let new = current.record.next(member, []);
                let term = new.term;
                let swap = Swap::new(current.version, new).unwrap();
                match client.swap(&swap, LONG).unwrap() {
                    Outcome::Won(_) => won.push(term),
                    Outcome::Lost(Some(now)) => assert!(now.record.term >= term),
                    Outcome::Lost(None) => panic!("the record is gone"),
                }
            }
        })
    };
    let racers: Vec<_> = (0..MEMBERS).map(|_| race()).collect();
    let mut winners = HashMap::new();
    for racer in racers {
        let (member, won) = racer.join().unwrap();
        for term in won {
            assert_eq!(winners.insert(term, member), None, "two members won {term}");
        }
    }
    // Each term but the first was won by one of them.
    let mut terms: Vec<_> = winners.keys().copied().collect();
    terms.sort_unstable();
    assert_eq!(terms, (2..=TERMS).map(Term).collect::<Vec<_>>());
    let last = in_thread(arb.clone()).unwrap().read(set, LONG).unwrap().unwrap().record;
    assert_eq!(winners[&Term(TERMS)], last.active);
}
