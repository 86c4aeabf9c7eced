//! The same requests to this server and to redis-server must have the same replies.
//!
//! First a script of known delicate cases, then long random sequences over few keys, so that all
//! types and states combine.

mod support;

use support::{Client, Server, Value};

/// Sorts replies without a defined order.
fn normalize(command: &str, value: Value) -> Value {
    let unordered = ["smembers", "hkeys", "hvals", "keys", "sinter", "sunion", "sdiff"];
    let pairs = ["hgetall"];
    let sort = |mut items: Vec<Value>| {
        items.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        items
    };
    let sort_pairs = |items: Vec<Value>| {
        let mut pairs: Vec<_> = items.chunks(2).map(<[Value]>::to_vec).collect();
        pairs.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        pairs.concat()
    };
    match value {
        Value::Set(items) => Value::Set(sort(items)),
        Value::Map(items) => Value::Map(sort_pairs(items)),
        Value::Array(items) if unordered.contains(&command) => Value::Array(sort(items)),
        Value::Array(items) if pairs.contains(&command) => Value::Array(sort_pairs(items)),
        other => other,
    }
}

struct Both {
    ours: Client,
    real: Client,
    log: Vec<String>,
    differences: Vec<String>,
}

impl Both {
    #[track_caller]
    fn check<T: AsRef<[u8]>>(&mut self, words: &[T]) {
        let line: Vec<_> =
            words.iter().map(|w| String::from_utf8_lossy(w.as_ref()).into_owned()).collect();
        self.log.push(format!("{line:?}"));
        let command = line[0].to_lowercase();
        let ours = normalize(&command, self.ours.ask(words));
        let real = normalize(&command, self.real.ask(words));
        if ours != real {
            self.differences.push(format!("{line:?}\n ours: {ours:?}\n real: {real:?}"));
        }
    }

    /// Fails if there was a difference.
    #[track_caller]
    fn conclude(&self) {
        let shown = &self.differences[..self.differences.len().min(20)];
        assert!(shown.is_empty(), "{} differences:\n{}", self.differences.len(), shown.join("\n"));
    }
}

/// Both servers and a client of each, or `None` where there is no Redis.
fn both(ours: &Server) -> Option<(Server, Both)> {
    let Some(real) = Server::redis() else {
        vmm_lite_lab::skipped("the same requests to Redis", "redis-server is not installed");
        return None;
    };
    let both = Both {
        ours: ours.connect(),
        real: real.connect(),
        log: Vec::new(),
        differences: Vec::new(),
    };
    Some((real, both))
}

const SCRIPT: &str = include_str!("differential.txt");

#[test]
fn the_script() {
    let ours = Server::any();
    let Some((_real, mut both)) = both(&ours) else { return };
    for version in ["2", "3"] {
        both.ours.line(&format!("hello {version}"));
        both.real.line(&format!("hello {version}"));
        for line in
            SCRIPT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            // `""` is an empty word, `_` in a word is a space.
            let words: Vec<String> = line
                .split_whitespace()
                .map(|w| if w == "\"\"" { String::new() } else { w.replace('_', " ") })
                .collect();
            both.check(&words);
        }
        both.check(&["flushall"]);
    }
    both.conclude();
}

#[test]
fn every_number_of_words() {
    let ours = Server::any();
    let Some((_real, mut both)) = both(&ours) else { return };
    let Value::Array(names) = both.ours.line("command list") else { panic!("no list of commands") };
    // Commands that differ by nature, end the connection, or exist only here.
    let left_out = [
        "shutdown",
        "quit",
        "reset",
        "hello",
        "info",
        "command",
        "client",
        "config",
        "time",
        "memory",
        "lastsave",
        "slowlog",
        "vmm",
        "randomkey",
        "object",
        "auth",
    ];
    for name in names.iter().map(Value::text).filter(|name| !left_out.contains(&name.as_str())) {
        for count in 0..6 {
            let words: Vec<&str> = std::iter::once(name.as_str())
                .chain((0..count).map(|n| ["k", "v", "w", "x", "y"][n]))
                .collect();
            both.check(&words);
            if words == ["multi"] {
                both.check(&["discard"]);
            }
        }
    }
    both.conclude();
}

fn random_request(random: &mut fastrand::Rng) -> Vec<String> {
    fn pick<'a>(random: &mut fastrand::Rng, from: &[&'a str]) -> &'a str {
        from[random.usize(..from.len())]
    }
    let template = pick(
        random,
        &[
            "get K",
            "set K V",
            "set K V nx",
            "set K V xx get",
            "set K V ex 1000",
            "set K V keepttl",
            "getset K V",
            "getdel K",
            "append K V",
            "strlen K",
            "incr K",
            "decrby K N",
            "mget K K K",
            "mset K V K V",
            "msetnx K V K V",
            "setnx K V",
            "getrange K N N",
            "setrange K 3 V",
            "getex K persist",
            "del K",
            "del K K",
            "exists K K",
            "type K",
            "rename K K",
            "renamenx K K",
            "copy K K replace",
            "expire K 1000",
            "ttl K",
            "persist K",
            "dbsize",
            "keys *",
            "object encoding2",
            "hset K M V",
            "hset K M V M V",
            "hsetnx K M V",
            "hget K M",
            "hmget K M M",
            "hgetall K",
            "hkeys K",
            "hvals K",
            "hdel K M M",
            "hexists K M",
            "hlen K",
            "hstrlen K M",
            "hincrby K M N",
            "hincrbyfloat K M F",
            "lpush K V V",
            "rpush K V",
            "lpushx K V",
            "rpushx K V",
            "lpop K",
            "rpop K 2",
            "llen K",
            "lrange K N N",
            "lindex K N",
            "lset K N V",
            "lrem K N V",
            "ltrim K N N",
            "linsert K before V V",
            "linsert K after V V",
            "lpos K V",
            "lpos K V rank -1 count 0",
            "lmove K K left right",
            "rpoplpush K K",
            "sadd K M M",
            "srem K M",
            "sismember K M",
            "smismember K M M",
            "smembers K",
            "scard K",
            "smove K K M",
            "sinter K K",
            "sunion K K",
            "sdiff K K",
            "sinterstore K K K",
            "sunionstore K K K",
            "sdiffstore K K K",
            "zadd K F M",
            "zadd K nx F M F M",
            "zadd K gt ch F M",
            "zadd K incr F M",
            "zincrby K F M",
            "zrem K M",
            "zscore K M",
            "zmscore K M M",
            "zcard K",
            "zrank K M",
            "zrevrank K M",
            "zpopmin K",
            "zpopmax K 2",
            "zcount K F F",
            "zrange K N N withscores",
            "zrange K F F byscore",
            "zrange K F F byscore rev limit 1 2",
            "zrevrange K N N",
            "zrangebyscore K (F F withscores limit 0 2",
            "zrevrangebyscore K F F",
            "zremrangebyrank K N N",
            "zremrangebyscore K F (F",
        ],
    );
    template
        .split(' ')
        .map(|word| match word {
            "K" => pick(random, &["a", "b", "c", "d", "e"]).to_owned(),
            "V" => pick(
                random,
                &["", "v", "10", "-5", "3.5", "hello", "a longer value than fits in place"],
            )
            .to_owned(),
            "M" => pick(random, &["m", "n", "o", "p", "10"]).to_owned(),
            "N" => pick(random, &["0", "1", "-1", "2", "-3", "100", "x"]).to_owned(),
            "F" => pick(random, &["0", "1", "-1.5", "2.25", "3e2", "inf", "-inf", "x", "10"])
                .to_owned(),
            "(F" => format!("({}", pick(random, &["0", "1", "-inf", "2.25"])),
            other => other.to_owned(),
        })
        .collect()
}

#[test]
fn random_sequences() {
    let ours = Server::any();
    let Some((_real, mut both)) = both(&ours) else { return };
    let seeds = std::env::var("KV_TEST_SEEDS")
        .map_or(20, |n| n.parse().expect("KV_TEST_SEEDS is a number"));
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let hello = format!("hello {}", 2 + seed % 2);
        both.ours.line(&hello);
        both.real.line(&hello);
        both.check(&["flushall"]);
        for _ in 0..1500 {
            let request = random_request(&mut random);
            both.check(&request);
            if !both.differences.is_empty() {
                println!(
                    "seed {seed}, after:\n{}",
                    both.log[both.log.len().saturating_sub(30)..].join("\n")
                );
                both.conclude();
            }
        }
    }
}

#[test]
fn protocol_errors() {
    let ours = Server::any();
    let Some((real, _both)) = both(&ours) else { return };
    let long = "1".repeat(70_000);
    for input in [
        "*x\r\n",
        "*2147483648\r\n",
        "*1\r\n:3\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$536870913\r\n",
        "set \"a\r\n",
        &format!("*{long}"),
        &format!("*1\r\n${long}"),
        &long,
        // Not protocol errors: the connection continues.
        "*0\r\n*-1\r\n\r\nPING\r\nQUIT\r\n",
        "ping \"x y\" \r\nQUIT\r\n",
        "*1\r\n$4\r\nPINGxxQUIT\r\n",
    ] {
        let replies = |server: &Server| {
            let mut client = server.connect();
            client.send(input.as_bytes());
            std::iter::from_fn(|| client.try_read()).collect::<Vec<_>>()
        };
        let (ours, real) = (replies(&ours), replies(&real));
        assert_eq!(ours, real, "{}", &input[..input.len().min(40)]);
    }
}
