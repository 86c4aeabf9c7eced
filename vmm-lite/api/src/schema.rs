//! Keeps `docs/control-socket.schema.json` and `docs/control-socket.md` up to date with the types.

use crate::{Line, Request, Response};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::PathBuf};

/// A control socket.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct ControlSocket {
    /// A line from the client.
    request: Request,
    /// A line from the VM.
    line: Line<Response>,
}

fn docs(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../docs", name].iter().collect()
}

fn schema() -> Value {
    schema_for!(ControlSocket).to_value()
}

/// Makes the file that the next test compares.
#[test]
#[ignore = "makes a file that is kept"]
fn make_the_schema() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    fs::write(docs("control-socket.schema.json"), text).unwrap();
}

#[test]
fn the_schema_in_the_docs_is_that_of_the_types() {
    let text = fs::read_to_string(docs("control-socket.schema.json")).unwrap();
    let kept: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(kept, schema(), "run the ignored test that makes it");
}

#[test]
fn the_document_names_every_member_and_every_value() {
    let mut names = BTreeSet::new();
    collect(&schema(), &mut names);
    let text = fs::read_to_string(docs("control-socket.md")).unwrap();
    // Every second part is code, in single or in triple backquotes.
    let code = text.split('`').skip(1).step_by(2);
    let words =
        code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && !"_-".contains(c)));
    let documented: BTreeSet<_> = words.collect();
    // What a client makes of values that it does not know, and the two of this file.
    let of_the_client = ["unknown", "request", "line"];
    let missing = |name: &&str| !documented.contains(name) && !of_the_client.contains(name);
    let missing: Vec<_> = names.iter().map(String::as_str).filter(missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The names of members, and the texts that a member may be, anywhere in a schema.
fn collect(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                match (key.as_str(), value) {
                    ("properties", Value::Object(properties)) => {
                        names.extend(properties.keys().cloned());
                    }
                    ("const", Value::String(text)) => names.extend([text.clone()]),
                    ("enum", Value::Array(texts)) => {
                        names.extend(texts.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => {}
                }
                collect(value, names);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
