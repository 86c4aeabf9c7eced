//! All commands: name, number of words, effect on data, and positions of their keys.

use super::context::Context;
use super::error::Outcome;
use super::{
    connection, expiry, hashes, info, introspection, keys, lists, scan, server, sets,
    sorted_ranges, sorted_sets, strings, transactions,
};
use crate::protocol::{Args, Reply};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::OnceLock;

/// Changes data.
pub const WRITE: u8 = 1;
/// Only reads data.
pub const READ: u8 = 2;
/// May need memory, and is refused when memory is short.
pub const GROWS: u8 = 4;
/// Runs at once even between MULTI and EXEC.
pub const AT_ONCE: u8 = 8;
/// Takes constant or logarithmic time.
pub const FAST: u8 = 16;
/// Is for the server's operator.
pub const ADMIN: u8 = 32;

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Its name, in lower case.
    pub name: &'static str,
    /// Number of words, including its name; `-n` for at least n.
    pub arity: i32,
    /// Combination of the constants above.
    pub flags: u8,
    /// First key, last key (negative: from the end), step; all 0 without keys.
    pub keys: (i32, i32, i32),
    /// The function that executes it.
    pub run: fn(&mut Context<'_>, Args<'_>, &mut Reply<'_>) -> Outcome,
}

macro_rules! commands {
    ($($name:literal $arity:literal [$($flag:ident)*] $keys:tt $run:path;)*) => {
        /// All commands, by group.
        pub static COMMANDS: &[Command] = &[
            $(Command { name: $name, arity: $arity, flags: 0 $(| $flag)*, keys: $keys,
                run: $run },)*
        ];
    };
}

commands! {
    "get" 2 [READ FAST] (1, 1, 1) strings::get;
    "set" -3 [WRITE GROWS] (1, 1, 1) strings::set;
    "getset" 3 [WRITE GROWS FAST] (1, 1, 1) strings::getset;
    "getdel" 2 [WRITE FAST] (1, 1, 1) strings::getdel;
    "getex" -2 [WRITE FAST] (1, 1, 1) strings::getex;
    "append" 3 [WRITE GROWS FAST] (1, 1, 1) strings::append;
    "strlen" 2 [READ FAST] (1, 1, 1) strings::strlen;
    "incr" 2 [WRITE GROWS FAST] (1, 1, 1) strings::incr;
    "decr" 2 [WRITE GROWS FAST] (1, 1, 1) strings::decr;
    "incrby" 3 [WRITE GROWS FAST] (1, 1, 1) strings::incrby;
    "decrby" 3 [WRITE GROWS FAST] (1, 1, 1) strings::decrby;
    "incrbyfloat" 3 [WRITE GROWS FAST] (1, 1, 1) strings::incrbyfloat;
    "mget" -2 [READ FAST] (1, -1, 1) strings::mget;
    "mset" -3 [WRITE GROWS] (1, -1, 2) strings::mset;
    "msetnx" -3 [WRITE GROWS] (1, -1, 2) strings::msetnx;
    "setnx" 3 [WRITE GROWS FAST] (1, 1, 1) strings::setnx;
    "setex" 4 [WRITE GROWS] (1, 1, 1) strings::setex;
    "psetex" 4 [WRITE GROWS] (1, 1, 1) strings::psetex;
    "getrange" 4 [READ] (1, 1, 1) strings::getrange;
    "substr" 4 [READ] (1, 1, 1) strings::getrange;
    "setrange" 4 [WRITE GROWS] (1, 1, 1) strings::setrange;

    "del" -2 [WRITE] (1, -1, 1) keys::del;
    "unlink" -2 [WRITE FAST] (1, -1, 1) keys::del;
    "exists" -2 [READ FAST] (1, -1, 1) keys::exists;
    "touch" -2 [READ FAST] (1, -1, 1) keys::exists;
    "type" 2 [READ FAST] (1, 1, 1) keys::type_of;
    "rename" 3 [WRITE] (1, 2, 1) keys::rename;
    "renamenx" 3 [WRITE FAST] (1, 2, 1) keys::renamenx;
    "copy" -3 [WRITE GROWS] (1, 2, 1) keys::copy;
    "move" 3 [WRITE FAST] (1, 1, 1) keys::move_key;
    "keys" 2 [READ] (0, 0, 0) keys::keys;
    "randomkey" 1 [READ] (0, 0, 0) keys::randomkey;
    "dbsize" 1 [READ FAST] (0, 0, 0) keys::dbsize;
    "flushall" -1 [WRITE] (0, 0, 0) keys::flushall;
    "flushdb" -1 [WRITE] (0, 0, 0) keys::flushdb;
    "object" -2 [READ] (2, 2, 1) keys::object;
    "scan" -2 [READ] (0, 0, 0) scan::scan;
    "hscan" -3 [READ] (1, 1, 1) scan::hscan;
    "sscan" -3 [READ] (1, 1, 1) scan::sscan;
    "zscan" -3 [READ] (1, 1, 1) scan::zscan;
    "expire" -3 [WRITE FAST] (1, 1, 1) expiry::expire;
    "pexpire" -3 [WRITE FAST] (1, 1, 1) expiry::pexpire;
    "expireat" -3 [WRITE FAST] (1, 1, 1) expiry::expireat;
    "pexpireat" -3 [WRITE FAST] (1, 1, 1) expiry::pexpireat;
    "ttl" 2 [READ FAST] (1, 1, 1) expiry::ttl;
    "pttl" 2 [READ FAST] (1, 1, 1) expiry::pttl;
    "expiretime" 2 [READ FAST] (1, 1, 1) expiry::expiretime;
    "pexpiretime" 2 [READ FAST] (1, 1, 1) expiry::pexpiretime;
    "persist" 2 [WRITE FAST] (1, 1, 1) expiry::persist;

    "hset" -4 [WRITE GROWS FAST] (1, 1, 1) hashes::hset;
    "hmset" -4 [WRITE GROWS FAST] (1, 1, 1) hashes::hmset;
    "hsetnx" 4 [WRITE GROWS FAST] (1, 1, 1) hashes::hsetnx;
    "hget" 3 [READ FAST] (1, 1, 1) hashes::hget;
    "hmget" -3 [READ FAST] (1, 1, 1) hashes::hmget;
    "hgetall" 2 [READ] (1, 1, 1) hashes::hgetall;
    "hkeys" 2 [READ] (1, 1, 1) hashes::hkeys;
    "hvals" 2 [READ] (1, 1, 1) hashes::hvals;
    "hdel" -3 [WRITE FAST] (1, 1, 1) hashes::hdel;
    "hexists" 3 [READ FAST] (1, 1, 1) hashes::hexists;
    "hlen" 2 [READ FAST] (1, 1, 1) hashes::hlen;
    "hstrlen" 3 [READ FAST] (1, 1, 1) hashes::hstrlen;
    "hincrby" 4 [WRITE GROWS FAST] (1, 1, 1) hashes::hincrby;
    "hincrbyfloat" 4 [WRITE GROWS FAST] (1, 1, 1) hashes::hincrbyfloat;
    "hrandfield" -2 [READ] (1, 1, 1) hashes::hrandfield;

    "lpush" -3 [WRITE GROWS FAST] (1, 1, 1) lists::lpush;
    "rpush" -3 [WRITE GROWS FAST] (1, 1, 1) lists::rpush;
    "lpushx" -3 [WRITE GROWS FAST] (1, 1, 1) lists::lpushx;
    "rpushx" -3 [WRITE GROWS FAST] (1, 1, 1) lists::rpushx;
    "lpop" -2 [WRITE FAST] (1, 1, 1) lists::lpop;
    "rpop" -2 [WRITE FAST] (1, 1, 1) lists::rpop;
    "llen" 2 [READ FAST] (1, 1, 1) lists::llen;
    "lrange" 4 [READ] (1, 1, 1) lists::lrange;
    "lindex" 3 [READ] (1, 1, 1) lists::lindex;
    "lset" 4 [WRITE GROWS] (1, 1, 1) lists::lset;
    "lrem" 4 [WRITE] (1, 1, 1) lists::lrem;
    "ltrim" 4 [WRITE] (1, 1, 1) lists::ltrim;
    "linsert" 5 [WRITE GROWS] (1, 1, 1) lists::linsert;
    "lpos" -3 [READ] (1, 1, 1) lists::lpos;
    "lmove" 5 [WRITE GROWS] (1, 2, 1) lists::lmove;
    "rpoplpush" 3 [WRITE GROWS] (1, 2, 1) lists::rpoplpush;

    "sadd" -3 [WRITE GROWS FAST] (1, 1, 1) sets::sadd;
    "srem" -3 [WRITE FAST] (1, 1, 1) sets::srem;
    "sismember" 3 [READ FAST] (1, 1, 1) sets::sismember;
    "smismember" -3 [READ FAST] (1, 1, 1) sets::smismember;
    "smembers" 2 [READ] (1, 1, 1) sets::smembers;
    "scard" 2 [READ FAST] (1, 1, 1) sets::scard;
    "spop" -2 [WRITE FAST] (1, 1, 1) sets::spop;
    "srandmember" -2 [READ] (1, 1, 1) sets::srandmember;
    "smove" 4 [WRITE FAST] (1, 2, 1) sets::smove;
    "sinter" -2 [READ] (1, -1, 1) sets::sinter;
    "sunion" -2 [READ] (1, -1, 1) sets::sunion;
    "sdiff" -2 [READ] (1, -1, 1) sets::sdiff;
    "sinterstore" -3 [WRITE GROWS] (1, -1, 1) sets::sinterstore;
    "sunionstore" -3 [WRITE GROWS] (1, -1, 1) sets::sunionstore;
    "sdiffstore" -3 [WRITE GROWS] (1, -1, 1) sets::sdiffstore;

    "zadd" -4 [WRITE GROWS FAST] (1, 1, 1) sorted_sets::zadd;
    "zincrby" 4 [WRITE GROWS FAST] (1, 1, 1) sorted_sets::zincrby;
    "zrem" -3 [WRITE FAST] (1, 1, 1) sorted_sets::zrem;
    "zscore" 3 [READ FAST] (1, 1, 1) sorted_sets::zscore;
    "zmscore" -3 [READ FAST] (1, 1, 1) sorted_sets::zmscore;
    "zcard" 2 [READ FAST] (1, 1, 1) sorted_sets::zcard;
    "zrank" 3 [READ FAST] (1, 1, 1) sorted_sets::zrank;
    "zrevrank" 3 [READ FAST] (1, 1, 1) sorted_sets::zrevrank;
    "zpopmin" -2 [WRITE FAST] (1, 1, 1) sorted_sets::zpopmin;
    "zpopmax" -2 [WRITE FAST] (1, 1, 1) sorted_sets::zpopmax;
    "zcount" 4 [READ FAST] (1, 1, 1) sorted_ranges::zcount;
    "zrange" -4 [READ] (1, 1, 1) sorted_ranges::zrange;
    "zrevrange" -4 [READ] (1, 1, 1) sorted_ranges::zrevrange;
    "zrangebyscore" -4 [READ] (1, 1, 1) sorted_ranges::zrangebyscore;
    "zrevrangebyscore" -4 [READ] (1, 1, 1) sorted_ranges::zrevrangebyscore;
    "zremrangebyrank" 4 [WRITE] (1, 1, 1) sorted_ranges::zremrangebyrank;
    "zremrangebyscore" 4 [WRITE] (1, 1, 1) sorted_ranges::zremrangebyscore;

    "multi" 1 [FAST AT_ONCE] (0, 0, 0) transactions::multi;
    "exec" 1 [AT_ONCE] (0, 0, 0) transactions::exec;
    "discard" 1 [FAST AT_ONCE] (0, 0, 0) transactions::discard;
    "watch" -2 [FAST AT_ONCE] (1, -1, 1) transactions::watch;
    "unwatch" 1 [FAST] (0, 0, 0) transactions::unwatch_all;

    "ping" -1 [FAST] (0, 0, 0) connection::ping;
    "echo" 2 [FAST] (0, 0, 0) connection::echo;
    "quit" -1 [FAST AT_ONCE] (0, 0, 0) connection::quit;
    "select" 2 [FAST] (0, 0, 0) connection::select;
    "auth" -2 [FAST] (0, 0, 0) connection::auth;
    "hello" -1 [FAST] (0, 0, 0) connection::hello;
    "reset" 1 [FAST AT_ONCE] (0, 0, 0) connection::reset;
    "client" -2 [ADMIN] (0, 0, 0) connection::client;

    "info" -1 [] (0, 0, 0) info::info;
    "config" -2 [ADMIN] (0, 0, 0) server::config;
    "command" -1 [] (0, 0, 0) introspection::command;
    "time" 1 [FAST] (0, 0, 0) server::time;
    "memory" -2 [READ] (2, 2, 1) server::memory;
    "lastsave" 1 [FAST] (0, 0, 0) server::lastsave;
    "swapdb" 3 [WRITE FAST] (0, 0, 0) server::swapdb;
    "slowlog" -2 [ADMIN] (0, 0, 0) server::slowlog;
    "shutdown" -1 [ADMIN] (0, 0, 0) server::shutdown;
    "vmm" -2 [] (0, 0, 0) info::vmm;
}

/// No command's name is longer.
const MAX_NAME: usize = 32;

/// The command with this name, in any case.
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    static BY_NAME: OnceLock<HashMap<&'static [u8], &'static Command, FixedState>> =
        OnceLock::new();
    let mut lower = [0; MAX_NAME];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let by_name = BY_NAME.get_or_init(|| COMMANDS.iter().map(|c| (c.name.as_bytes(), c)).collect());
    by_name.get(&*lower).copied()
}

impl Command {
    /// Whether this number of words is right.
    #[must_use]
    pub fn takes(&self, words: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { words >= arity } else { words == arity }
    }
}
