//! Lines of the control socket, as files: what older clients and VMs sent is understood, and what
//! is sent is what they understand.

use api::{ErrorKind, Event, Failure, Line, Progress, Request, Verb, verb};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Parses `line` and writes it again, which results in the same value.
#[track_caller]
fn kept<T: Serialize + DeserializeOwned>(line: &str) -> T {
    let parsed = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    assert_eq!(serde_json::to_value(&parsed).unwrap(), value(line));
    parsed
}

fn value(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn answer<V: Verb<Answer: Serialize + DeserializeOwned>>(line: &Value) {
    let parsed: Line<V::Answer> = kept(&line.to_string());
    assert!(matches!(parsed, Line::Ok { .. }), "{line}");
}

#[test]
fn requests_are_read_and_written_as_ever() {
    for line in include_str!("golden/requests.jsonl").lines() {
        let request = Request::read(&mut line.as_bytes()).unwrap().unwrap();
        assert_eq!(serde_json::to_value(&request).unwrap(), value(line));
    }
}

#[test]
fn requests_with_what_older_clients_add_are_read() {
    for (line, least) in [
        (r#"{"verb":"stop","force":false}"#, verb::Stop::default().into()),
        (r#"{"verb":"resume","runs_nowhere_else":false}"#, verb::Resume::default().into()),
        (r#"{"verb":"snapshot","stay_paused":false}"#, verb::Snapshot::default().into()),
        (r#"{"verb":"revert"}"#, verb::Revert::default().into()),
    ] {
        let request: Request = Request::read(&mut line.as_bytes()).unwrap().unwrap();
        assert_eq!(request, least);
    }
}

#[test]
fn answers_are_read_and_written_as_ever() {
    let lines = include_str!("golden/answers.jsonl").lines();
    let mut verbs = Vec::new();
    for line in lines {
        let (name, line): (String, Value) = serde_json::from_str(line).unwrap();
        match name.as_str() {
            "stats" => answer::<verb::Stats>(&line),
            "metrics" => answer::<verb::Metrics>(&line),
            "pause" => answer::<verb::Pause>(&line),
            "resume" => answer::<verb::Resume>(&line),
            "stop" => answer::<verb::Stop>(&line),
            "cancel" => answer::<verb::Cancel>(&line),
            "console" => answer::<verb::Console>(&line),
            "migrate" => answer::<verb::Migrate>(&line),
            "snapshot" => answer::<verb::Snapshot>(&line),
            "fork" => answer::<verb::Fork>(&line),
            "revert" => answer::<verb::Revert>(&line),
            "protect" => answer::<verb::Protect>(&line),
            "unprotect" => answer::<verb::Unprotect>(&line),
            "failover" => answer::<verb::Failover>(&line),
            other => panic!("no verb {other}"),
        }
        verbs.push(name);
    }
    verbs.dedup();
    assert_eq!(verbs.len(), 14, "each verb has an example");
}

#[test]
fn progress_is_read_and_written_as_ever() {
    let lines: Vec<_> = include_str!("golden/progress.jsonl").lines().collect();
    let [before @ .., failed] = &lines[..] else { panic!("no lines") };
    let steps = before.iter().map(|line| match kept::<Line<Value>>(line) {
        Line::Progress { progress } => progress,
        Line::Ok { .. } | Line::Error(_) => panic!("{line} is no progress"),
    });
    let kinds: Vec<_> = steps
        .map(|step| match step {
            Progress::Event(Event::Phase { .. }) => "phase",
            Progress::Event(Event::Round(_)) => "round",
            Progress::Event(Event::Waiting { .. }) => "waiting",
            Progress::Event(Event::Failed { .. }) => "failed",
            Progress::Pages(_) => "pages",
            Progress::WaitingFor { .. } => "waiting_for",
            Progress::Other(_) => "of a newer VM",
        })
        .collect();
    let all = ["phase", "round", "waiting", "pages", "waiting_for", "of a newer VM"];
    assert_eq!(kinds, all);
    assert!(matches!(kept(failed), Event::Failed { .. }));
}

#[test]
fn errors_have_a_kind() {
    let failure = |line| match kept::<Line<Value>>(line) {
        Line::Error(failure) => failure,
        Line::Ok { .. } | Line::Progress { .. } => panic!("{line} is no error"),
    };
    let kinds: Vec<_> =
        include_str!("golden/errors.jsonl").lines().map(|line| failure(line).kind).collect();
    assert_eq!((kinds.len(), kinds.last()), (11, Some(&ErrorKind::TooMany)));
}

#[test]
fn errors_of_older_and_of_newer_vms_are_read() {
    for line in include_str!("golden/errors-0.2.jsonl").lines() {
        let failure: Failure = serde_json::from_str(line).unwrap();
        assert_eq!((failure.kind, failure.retry), (ErrorKind::Failed, line.contains("retry")));
    }
    let newer = r#"{"error":"x","kind":"of a newer VM","more":1}"#;
    assert_eq!(serde_json::from_str::<Failure>(newer).unwrap().kind, ErrorKind::Failed);
}

#[test]
fn stats_of_a_vm_that_lacks_members_are_read() {
    let stats: api::Stats = serde_json::from_str(r#"{"name":"kv","state":"later"}"#).unwrap();
    assert_eq!((stats.name.as_str(), stats.state), ("kv", api::stats::State::Unknown));
    assert_eq!(stats.net, None);
}
