//! A real etcd whose members are stopped and killed.

mod common;

use arbiter::{Arb, Error, MemberId, Outcome, SetId, Swap, Version, in_thread};
use common::{LONG, etcd, first, random, version, win};
use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use vmm_lite_lab::etcd::Cluster;

const SHORT: Duration = Duration::from_millis(300);

fn arb(etcd: &Cluster) -> Arb {
    format!("etcd://{}", etcd.endpoints()).parse().unwrap()
}

#[test]
fn a_record_outlives_the_death_of_etcd() {
    let Some(mut etcd) = etcd(1) else { return };
    let mut client = in_thread(arb(&etcd)).unwrap();
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    etcd.kill(0);
    let swap = Swap::new(made, first.next(first.active, [])).unwrap();
    // The connection that was open tells only that it broke; a new one is refused.
    let _ = client.swap(&swap, SHORT);
    let error = client.swap(&swap, SHORT).unwrap_err();
    assert!(matches!(&error, Error::Unreachable(why) if why.contains("refused")), "{error}");
    assert!(matches!(client.read(first.set, SHORT), Err(Error::Unreachable(_))));
    // A request whose deadline is later than the restart is answered.
    let waiting = thread::spawn(move || client.swap(&swap, LONG));
    etcd.restart(0).unwrap();
    let outcome = waiting.join().unwrap().unwrap();
    let Outcome::Won(next) = outcome else { panic!("{outcome:?}") };
    let mut client = in_thread(arb(&etcd)).unwrap();
    let stored = client.read(first.set, LONG).unwrap().unwrap();
    assert_eq!((stored.record, stored.version), (first.next(first.active, []), next));
}

#[test]
fn a_swap_without_an_answer_is_resolved_by_repeating_it() {
    let Some(etcd) = etcd(1) else { return };
    let [mut client, mut other] = [(); 2].map(|()| in_thread(arb(&etcd)).unwrap());
    let first = first();
    let mut last = win(&mut client, Version::NONE, first.clone());
    for round in 0..6 {
        let swap = Swap::new(last, first.next(MemberId(random()), [])).unwrap();
        etcd.pause(0).unwrap();
        let error = client.swap(&swap, SHORT).unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{error}");
        etcd.resume(0).unwrap();
        // It lies in a socket's buffer, and takes effect now, or when it is repeated.
        if round % 2 == 0 {
            let Ok(Outcome::Won(version)) = client.swap(&swap, LONG) else { panic!("lost") };
            last = version;
            assert_eq!(version_of(&mut other, first.set), last);
        } else {
            // Another member wins instead; then neither copy has an effect any more.
            let taken = Swap::new(last, first.next(MemberId(random()), [])).unwrap();
            let outcome = other.swap(&taken, LONG).unwrap();
            let repeated = client.swap(&swap, LONG).unwrap();
            last = match (outcome, repeated) {
                (Outcome::Won(version), Outcome::Lost(Some(_))) => version,
                (Outcome::Lost(Some(_)), Outcome::Won(version)) => version,
                other => panic!("{other:?}"),
            };
            assert_eq!(version_of(&mut client, first.set), last);
        }
    }
}

fn version_of(client: &mut arbiter::ArbiterClient, set: SetId) -> Version {
    version(client, set)
}

#[test]
fn a_member_that_stops_or_dies_delays_a_swap_a_little() {
    let Some(mut etcd) = etcd(3) else { return };
    let mut client = in_thread(arb(&etcd)).unwrap();
    let mut record = first();
    let mut last = win(&mut client, Version::NONE, record.clone());
    for round in 0..6 {
        // The leader, sooner or later; and the member that answered last.
        let victim = round % 3;
        let pause = round < 3;
        if pause {
            etcd.pause(victim).unwrap()
        } else {
            etcd.kill(victim)
        }
        let began = Instant::now();
        record = record.next(MemberId(random()), []);
        last = win(&mut client, last, record.clone());
        let took = began.elapsed();
        // An election (0.5 to 1 s here), and an attempt that was lost in it.
        assert!(took < Duration::from_secs(6), "{took:?} with member {victim} away");
        if pause {
            etcd.resume(victim).unwrap()
        } else {
            etcd.restart(victim).unwrap()
        }
        assert_eq!(version(&mut client, record.set), last);
    }
}

#[test]
fn a_minority_of_members_decides_nothing() {
    let Some(mut etcd) = etcd(3) else { return };
    let mut client = in_thread(arb(&etcd)).unwrap();
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    etcd.kill(0);
    etcd.kill(1);
    let swap = Swap::new(made, first.next(first.active, [])).unwrap();
    let within = Duration::from_secs(2);
    let error = client.swap(&swap, within).unwrap_err();
    assert!(matches!(error, Error::Unknown(_) | Error::Unreachable(_)), "{error}");
    assert!(matches!(client.read(first.set, within), Err(Error::Unreachable(_))));
    etcd.restart(0).unwrap();
    assert!(matches!(client.swap(&swap, LONG), Ok(Outcome::Won(_))));
}

#[test]
fn each_term_has_one_winner_while_members_stop_and_die() {
    let Some(mut etcd) = etcd(3) else { return };
    let first = first();
    let set = first.set;
    win(&mut in_thread(arb(&etcd)).unwrap(), Version::NONE, first);
    let done = Arc::new(AtomicBool::new(false));
    let race = || {
        let (arb, done) = (arb(&etcd), Arc::clone(&done));
        thread::spawn(move || {
            let (mut client, member, mut won) =
                (in_thread(arb).unwrap(), MemberId(random()), vec![]);
            while !done.load(Ordering::Relaxed) {
                let Ok(current) = client.read(set, SHORT) else { continue };
                let current = current.expect("the record never vanishes");
                let swap = Swap::new(current.version, current.record.next(member, [])).unwrap();
                loop {
                    match client.swap(&swap, SHORT) {
                        Ok(Outcome::Won(version)) => break won.push((swap.new.term, version)),
                        Ok(Outcome::Lost(_)) => break,
                        Err(e) if e.is_ambiguous() => {}
                        // Nothing has happened, unless an earlier repetition did something; only
                        // an answer tells.
                        Err(Error::Unreachable(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            }
            (member, won)
        })
    };
    let racers: Vec<_> = (0..4).map(|_| race()).collect();
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        let victim = fastrand::usize(..3);
        let moment = Duration::from_millis(fastrand::u64(100..700));
        if fastrand::bool() {
            etcd.pause(victim).unwrap();
            thread::sleep(moment);
            etcd.resume(victim).unwrap();
        } else {
            etcd.kill(victim);
            thread::sleep(moment);
            etcd.restart(victim).unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    let mut winners = HashMap::new();
    for racer in racers {
        let (member, won) = racer.join().unwrap();
        for (term, version) in won {
            assert_eq!(winners.insert(term, (version, member)), None, "{term} won twice");
        }
    }
    let last = in_thread(arb(&etcd)).unwrap().read(set, LONG).unwrap().unwrap();
    assert_eq!(winners[&last.record.term], (last.version, last.record.active));
    // A swap that was won and then replaced before its answer came counts as lost for its member.
    assert!(winners.len() > 20, "{} terms won", winners.len());
    let mut in_order: Vec<_> = winners.into_iter().collect();
    in_order.sort_unstable_by_key(|(term, _)| *term);
    assert!(in_order.is_sorted_by(|(_, (a, _)), (_, (b, _))| a.0 < b.0), "versions grow");
}

#[test]
fn what_is_not_etcd_gives_no_answer() {
    // A listener that never answers, one that is gone, and no such host.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = format!("etcd://{}", silent.local_addr().unwrap());
    for (arb, changes) in
        [(silent, true), (format!("etcd://{gone}"), false), ("etcd://no.invalid".into(), false)]
    {
        let mut client = in_thread(arb.parse().unwrap()).unwrap();
        let began = Instant::now();
        let read = client.read(SetId(random()), SHORT);
        assert!(matches!(read, Err(Error::Unreachable(_))), "{arb}: {read:?}");
        let swap = client.swap(&Swap::new(Version::NONE, first()).unwrap(), SHORT);
        let error = swap.unwrap_err();
        if changes {
            assert!(error.is_ambiguous(), "{arb}: {error}");
        }
        assert!(began.elapsed() < 10 * SHORT, "{arb}: {:?}", began.elapsed());
    }
}
