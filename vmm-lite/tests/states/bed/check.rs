//! One cell of the table: a verb in a state, its answer, and the VM's final state.

use super::{Bed, LOOK, PORT, Scene, State};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{sync::atomic::Ordering::SeqCst, time::Instant};
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

impl Bed {
    /// Brings a VM into a state, runs a verb, and checks its answer and the VM's final state.
    pub fn check(&self, state: State, verb: &str, answer: &str, after: &str) {
        let what = format!("{verb} while {}", state.name());
        let mut scene = self.bring(state);
        let out = self.dir.path().join("verb.snap");
        let url = self.vmms[1].url(PORT);
        let own = match verb {
            "migrate" => vec![url.as_str(), "--plaintext"],
            "snapshot" => vec![out.to_str().unwrap()],
            "fork" => vec!["--prefix", "other", "--detach"],
            "revert" => vec![self.snapshot.as_str()],
            _ => Vec::new(),
        };
        // The verb itself ends after the VM's process, which the held thread would delay.
        let stops = verb == "stop" && state.held_at().is_some() && !state.lets_go_at_once(verb);
        let asks = !stops && verb != "SIGTERM";
        let asked = asks.then(|| self.verb(&[&[verb, "d"], &own[..]].concat()));
        if stops {
            let said = self.ask(r#"{"verb":"stop"}"#);
            assert_eq!(kind(said.get("ok").is_some(), &said.to_string()), answer, "{what}: {said}");
        }
        if verb == "SIGTERM" && state != State::Ended {
            scene.vm.signal(Signal::SIGTERM).unwrap();
        }
        if verb == "SIGTERM" && state.held_at().is_some() && !state.lets_go_at_once(verb) {
            self.until("the VM ends", || self.is_silent());
        }
        if state == State::HandedOver && verb == "SIGTERM" {
            scene.vm.wait_for_line("not ended: ", TIMEOUT).unwrap();
        }
        let mut asked = asked;
        if !state.lets_go_at_once(verb)
            && let Some(asked) = &mut asked
        {
            let end = Instant::now() + TIMEOUT;
            while asked.is_running() && !asked.output().contains("waiting for") {
                assert!(Instant::now() < end, "{what}: no answer\n{}", scene.vm.output());
                std::thread::sleep(LOOK);
            }
        }
        scene.passes.store(true, SeqCst);
        if state.held_at().is_some() && scene.vm.is_running() {
            scene.vm.signal(Signal::SIGCONT).unwrap();
        }
        if let Some(asked) = &mut asked {
            let status = asked.wait(TIMEOUT).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(
                kind(status.success(), &asked.output()),
                answer,
                "{what}: {}",
                asked.output()
            );
        }
        if let (Some(asked), Some(doing), "busy") = (&asked, state.doing(), answer) {
            let said = asked.output();
            assert!(said.contains(&format!("the VM is {doing};")), "{what}: {said}");
        }
        let ended = scene.operation.as_mut().map(|operation| operation.wait(TIMEOUT).unwrap());
        let said = scene.operation.as_ref().map(Process::output).unwrap_or_default();
        // The operation that was under way reports how it ended.
        let made = ended.is_none_or(|status| status.success());
        let unmade = after == "ended" || answer == "ok" && verb == "cancel";
        assert!(!said.contains("without an answer"), "{what}: {said}");
        if state != State::Quiescing {
            assert_eq!(made, !unmade || ended.is_none(), "{what}: {said}");
        }
        if matches!(state, State::Moving | State::Switching) && !made {
            assert!(said.contains(r#""event":"failed""#), "{what}: {said}");
        }
        self.is(&what, after, &mut scene);
        self.clear(scene);
    }

    pub(super) fn is(&self, what: &str, after: &str, scene: &mut Scene) {
        let (host, state) = match after {
            "ended" => {
                scene.vm.wait(TIMEOUT).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(self.stats(0).is_none() && self.stats(1).is_none(), "{what}");
                return;
            }
            "runs" => (0, "running"),
            "paused" => (0, "paused"),
            "runs there" => (1, "running"),
            "paused there" => (1, "paused"),
            other => panic!("{other} is no state to end in"),
        };
        if host == 1 {
            let status = scene.vm.wait(TIMEOUT).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(status.success(), "{what}: {}", scene.vm.output());
        }
        let mut stats = Value::Null;
        self.until(what, || {
            stats = self.stats(host).unwrap_or_default();
            stats["operation"].is_null() && stats["state"].is_string()
        });
        assert_eq!(stats["state"], state, "{what}: {stats}");
        assert!(self.stats(1 - host).is_none(), "{what}: there are two of it");
        if state == "paused" {
            self.vmms[host].json(&["resume", "d", "--json"]).unwrap();
        }
        let process = if host == 0 { &scene.vm } else { &scene.destination };
        let before = process.output().matches("passes=").count();
        self.until(what, || process.output().matches("passes=").count() > before);
        assert!(!process.output().contains("errors=1"), "{what}: {}", process.output());
    }

    /// Ends all VMs.
    fn clear(&self, scene: Scene) {
        drop(scene);
        let all = self.vmms[0].command(&["ps", "--json"]).unwrap().output().unwrap();
        let all: Value = serde_json::from_slice(&all.stdout).unwrap();
        for name in all.as_array().unwrap().iter().filter_map(|vm| vm["name"].as_str()) {
            self.vmms[0].json(&["stop", name, "--json"]).unwrap();
        }
    }
}

/// The kind of answer, in the table's words.
fn kind(success: bool, said: &str) -> &'static str {
    if success {
        return "ok";
    }
    let answers = [
        ("no VM named", "gone"),
        ("it is too late", "late"),
        ("was handed to", "elsewhere"),
        ("is not paused", "no"),
        ("that could be called off", "no"),
        ("try again when that is done", "busy"),
    ];
    answers.iter().find(|(words, _)| said.contains(words)).map_or("an error", |(_, kind)| kind)
}
