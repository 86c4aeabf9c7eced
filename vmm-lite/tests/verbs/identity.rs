//! `vmm-lite identity`.

use crate::Host;
use serde_json::Value;

#[test]
fn hosts_get_to_know_each_other() {
    let [a, b] = ["identity-a", "identity-b"].map(Host::new);
    let identity = |host: &Host, args: &[&str]| {
        let mut command = host.command(&["identity", "--identity"]);
        let out = command.arg(host.dir.join("id")).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    };
    let well = |host: &Host, args: &[&str]| {
        let (code, out, said) = identity(host, args);
        assert_eq!(code, 0, "{args:?}: {said}");
        out.trim().to_owned()
    };
    let (code, _, said) = identity(&a, &["show"]);
    assert!(code == 1 && said.contains("identity init"), "{said}");
    let (line_a, line_b) = (well(&a, &["init"]), well(&b, &["init", "--days", "10"]));
    assert!(line_a.starts_with("ed25519:") && line_a.lines().count() == 1, "{line_a}");
    assert_eq!(well(&a, &["show"]), line_a);
    let (code, _, said) = identity(&a, &["init"]);
    assert!(code == 1 && said.contains("holds an identity already"), "{said}");
    // One line, quoted or not.
    well(&a, &["trust", &line_b, "--name", "b"]);
    let mut words = vec!["trust"];
    words.extend(line_a.split_whitespace());
    words.extend(["--name", "a", "--send"]);
    well(&b, &words);
    let list =
        |host: &Host| serde_json::from_str::<Value>(&well(host, &["list", "--json"])).unwrap();
    let key = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    assert_eq!(
        list(&a),
        serde_json::json!([
            { "name": "b", "key": key(&line_b), "send": true, "receive": true, "at": [] }
        ])
    );
    assert_eq!(
        list(&b),
        serde_json::json!([
            { "name": "a", "key": key(&line_a), "send": true, "receive": false, "at": [] }
        ])
    );
    assert!(well(&b, &["list"]).contains("MAY SEND"));
    // Reported when it expires soon; after renewal the key is the same.
    let (_, _, said) = identity(&b, &["show"]);
    assert!(said.contains("expires in"), "{said}");
    let until = |host: &Host| {
        let shown: Value = serde_json::from_str(&well(host, &["show", "--json"])).unwrap();
        shown["valid_until"].as_u64().unwrap()
    };
    let before = until(&b);
    well(&b, &["renew"]);
    assert!(until(&b) > before + 300 * 24 * 3600);
    assert_eq!(well(&b, &["show"]), line_b);
    for wrong in [&["trust", "hello"][..], &["trust", &line_b[..40]], &["trust", "a", "b", "c"]] {
        assert_ne!(identity(&a, wrong).0, 0, "{wrong:?}");
    }
    well(&a, &["revoke", "b"]);
    assert_eq!(list(&a), serde_json::json!([]));
    assert_eq!(identity(&a, &["revoke", "b"]).0, 1);
}
