//! Commands without a server: a request goes in, the bytes of the reply come out.

use super::{Context, Session, State, execute};
use crate::config::Config;
use crate::protocol::{OwnedArgs, Reply};

struct Db {
    state: State,
    now: u64,
}

impl Db {
    fn new() -> Self {
        Self::with(Config { maxmemory: Some(0), ..Config::default() })
    }

    fn with(config: Config) -> Self {
        let mut state = State::new(config);
        let here = ([127, 0, 0, 1], 1).into();
        for id in 0..2 {
            state.sessions.insert(Box::new(Session::new(id, here, here, 0)));
        }
        Self { state, now: 1_000_000 }
    }

    /// Client `client` sends `line`, split at spaces.
    fn send(&mut self, client: usize, line: &str) -> String {
        let args: OwnedArgs = line.split(' ').collect();
        let mut out = Vec::new();
        let resp3 = self.state.sessions[client].resp3;
        let mut reply = Reply::new(&mut out, usize::MAX, resp3);
        execute(
            &mut Context { state: &mut self.state, client, now: self.now },
            args.borrow(),
            &mut reply,
        );
        String::from_utf8(out).unwrap().replace("\r\n", "|")
    }

    /// Client 0 sends each line; the expected reply follows `=>`.
    #[track_caller]
    fn check(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (request, want) = line.split_once(" => ").expect("a request and a reply");
            assert_eq!(self.send(0, request), want, "{request}");
        }
    }
}

#[test]
fn expiry_follows_the_clock() {
    let mut db = Db::new();
    db.check(
        "set k v PX 1500 => +OK|
         pttl k => :1500|
         ttl k => :2|
         set k w KEEPTTL => +OK|
         pttl k => :1500|
         expire k 100 NX => :0|
         expire k 100 GT => :1|
         expire k 10 GT => :0|
         expire k 1 LT => :1|
         pexpiretime k => :1001000|
         hset h f v => :1|
         pexpire h 5 => :1|",
    );
    db.now += 999;
    db.check("exists k h => :1|\n pttl k => :1|");
    db.now += 1;
    db.check("get k => $-1|\n ttl k => :-2|\n dbsize => :0|\n type h => +none|");
    db.check("set k v EX 0 => -ERR invalid expire time in 'set' command|");
    db.check("set k v => +OK|\n expire k -1 => :1|\n exists k => :0|");
    db.check("setex k 9223372036854775807 v => -ERR invalid expire time in 'setex' command|");
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let mut db = Db::new();
    db.check(
        "multi => +OK|
         incr a => +QUEUED|
         lpush a x => +QUEUED|
         incr a => +QUEUED|
         exec => *3|:1|-WRONGTYPE Operation against a key holding the wrong kind of value|:2|
         multi => +OK|
         nonsense => -ERR unknown command 'nonsense', with args beginning with: |
         incr a => +QUEUED|
         exec => -EXECABORT Transaction discarded because of previous errors.|
         get a => $1|2|
         multi => +OK|
         multi => -ERR MULTI calls can not be nested|
         discard => +OK|
         exec => -ERR EXEC without MULTI|",
    );
}

#[test]
fn a_watched_key_that_changes_stops_the_transaction() {
    for (change, stops) in [
        ("set w 1", true),
        ("del w", true),
        ("expire w 100", true),
        ("flushall", true),
        ("get w", false),
        ("set other 1", false),
        ("del nothing", false),
    ] {
        let mut db = Db::new();
        db.check("set w 0 => +OK|\n watch w => +OK|\n multi => +OK|\n set x 1 => +QUEUED|");
        db.send(1, change);
        assert_eq!(db.send(0, "exec") == "*-1|", stops, "{change}");
        assert!(db.state.store.database(0).watched().is_empty(), "{change}");
    }
    // An expired key has changed, too; a key that is no longer watched does not count.
    let mut db = Db::new();
    db.check("set w 0 PX 10 => +OK|\n watch w => +OK|\n multi => +OK|\n ping => +QUEUED|");
    db.now += 10;
    db.check(
        "exec => *-1|\n watch w => +OK|\n unwatch => +OK|\n set w 1 => +OK|\n multi => +OK|\n \
        exec => *0|",
    );
}

#[test]
fn memory_limit_refuses_what_grows_and_nothing_else() {
    let mut db = Db::new();
    db.check("set k v => +OK|");
    db.state.memory.limit = 1;
    let refused = "-OOM command not allowed when used memory > 'maxmemory'.|";
    for request in [
        "set a b",
        "lpush l x",
        "incr n",
        "hset h f v",
        "sadd s m",
        "zadd z 1 m",
        "append k x",
        "mset a b",
    ] {
        assert_eq!(db.send(0, request), refused, "{request}");
    }
    db.check(
        "get k => $1|v|\n expire k 100 => :1|\n del k => :1|\n config set maxmemory 0 => \
        +OK|\n set a b => +OK|",
    );
}

#[test]
fn one_command_cannot_take_more_than_the_available_memory() {
    let mut db = Db::new();
    db.state.memory.limit = crate::memory::used() + (1 << 20);
    db.check(
        "setrange k 100000000 x => -OOM command not allowed when used memory > 'maxmemory'.|
         setrange k 600000000 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)|
         exists k => :0|
         sadd s m => :1|
         srandmember s -100000000 => -ERR value is out of range|",
    );
}

#[test]
fn databases_are_apart() {
    let mut db = Db::new();
    db.check(
        "set k 0 => +OK|
         select 1 => +OK|
         get k => $-1|
         set k 1 => +OK|
         move k 0 => :0|
         move k 2 => :1|
         select 16 => -ERR DB index is out of range|
         select x => -ERR value is not an integer or out of range|
         swapdb 0 2 => +OK|
         select 0 => +OK|
         get k => $1|1|
         copy k k2 DB 3 => :1|
         flushdb => +OK|
         select 3 => +OK|
         get k2 => $1|1|
         flushall => +OK|
         dbsize => :0|",
    );
}

#[test]
fn replies_follow_the_version_chosen() {
    let mut db = Db::new();
    let hello = db.send(0, "hello 3");
    assert!(hello.starts_with("%7|$6|server|$5|redis|"), "{hello}");
    db.check(
        "get none => _|
         hset h f v => :1|
         hgetall h => %1|$1|f|$1|v|
         sadd s m => :1|
         smembers s => ~1|$1|m|
         zadd z 1.5 m => :1|
         zscore z m => ,1.5|
         zrange z 0 -1 withscores => *1|*2|$1|m|,1.5|
         hello 4 => -NOPROTO unsupported protocol version|",
    );
    assert!(db.send(0, "hello 2").starts_with("*14|$6|server|"));
    db.check("hgetall h => *2|$1|f|$1|v|\n zscore z m => $3|1.5|");
}

#[test]
fn replies_can_be_switched_off() {
    let mut db = Db::new();
    assert_eq!(db.send(0, "client reply skip"), "");
    assert_eq!(db.send(0, "set a 1"), "");
    assert_eq!(db.send(0, "get a"), "$1|1|");
    assert_eq!(db.send(0, "client reply off"), "");
    assert_eq!(db.send(0, "get a"), "");
    assert_eq!(db.send(0, "nonsense"), "");
    assert_eq!(db.send(0, "client reply on"), "+OK|");
}

#[test]
fn the_nonce_stays_and_the_counter_continues() {
    let mut db = Db::new();
    let nonce = db.send(0, "vmm nonce");
    let counter = |db: &mut Db| -> u64 {
        db.send(0, "vmm counter")[1..].trim_end_matches('|').parse().unwrap()
    };
    let first = counter(&mut db);
    db.send(0, "ping");
    assert_eq!(counter(&mut db), first + 2);
    assert_eq!(db.send(0, "vmm nonce"), nonce);
    assert_ne!(Db::new().send(0, "vmm nonce"), nonce);
}

#[test]
fn every_command_answers_any_number_of_words() {
    // No panic, and never an empty reply (which would leave the client waiting), for any words.
    let words = [
        "k",
        "1",
        "-1",
        "x",
        "",
        "(",
        "9223372036854775807",
        "-9223372036854775808",
        "withscores",
        "count",
        "1e400",
        "nan",
    ];
    let mut random = fastrand::Rng::with_seed(11);
    let mut db = Db::new();
    for command in super::table::COMMANDS {
        if ["shutdown", "client"].contains(&command.name) {
            continue;
        }
        for length in 1..7 {
            for _ in 0..40 {
                let mut line = command.name.to_owned();
                for _ in 1..length {
                    line.push(' ');
                    line.push_str(words[random.usize(..words.len())]);
                }
                let reply = db.send(0, &line);
                assert!(!reply.is_empty() && reply.ends_with('|'), "{line}: {reply}");
                if reply.contains("+QUEUED|") || command.name == "multi" {
                    db.send(0, "discard");
                }
            }
        }
    }
}
