//! Settings: from the command line, and later by CONFIG SET.

use std::net::{IpAddr, Ipv4Addr};

/// The Redis version whose behavior this server follows; clients choose their commands by it.
pub const REDIS_VERSION: &str = "7.0.15";

/// The settings. The memory limit moves to the guard once the server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port to listen on.
    pub port: u16,
    /// Memory limit in bytes, 0 for none; `None`: derived from the available memory.
    pub maxmemory: Option<usize>,
    /// Most clients.
    pub max_clients: usize,
    /// Longest string, in a request or stored.
    pub max_string: usize,
    /// Most bytes of replies that may wait for one client; `None`: derived from the available
    /// memory.
    pub max_output: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: Ipv4Addr::UNSPECIFIED.into(),
            port: 6379,
            maxmemory: None,
            max_clients: 10_000,
            max_string: 512 << 20,
            max_output: None,
        }
    }
}

const IMMUTABLE: &str = "can't set immutable config";

impl Config {
    /// The settings as CONFIG GET returns them, with the current `maxmemory`.
    #[must_use]
    pub fn settings(&self, maxmemory: usize) -> Vec<(&'static str, String)> {
        let output = self.max_output.unwrap_or(0);
        vec![
            ("appendonly", "no".into()),
            ("bind", self.bind.to_string()),
            ("client-output-buffer-limit", format!("normal {output} 0 0")),
            ("databases", crate::store::DATABASES.to_string()),
            ("maxclients", self.max_clients.to_string()),
            ("maxmemory", maxmemory.to_string()),
            ("maxmemory-policy", "noeviction".into()),
            ("port", self.port.to_string()),
            ("proto-max-bulk-len", self.max_string.to_string()),
            ("save", String::new()),
            ("tcp-keepalive", "0".into()),
            ("timeout", "0".into()),
        ]
    }

    /// Changes a setting, one of [`settings`](Self::settings), other than `maxmemory`.
    ///
    /// # Errors
    /// Why the value is refused.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "maxclients" => {
                self.max_clients = value
                    .parse()
                    .ok()
                    .filter(|&n| n > 0)
                    .ok_or("argument must be between 1 and 4294967295 inclusive")?;
            }
            "proto-max-bulk-len" => {
                let size =
                    parse_memory(value).filter(|n| (1 << 20..=isize::MAX as usize).contains(n));
                self.max_string = size.ok_or("argument must be a memory value")?;
            }
            // A fixed setting can be set to its value; clients and tools do that.
            "save" | "appendonly" | "maxmemory-policy" | "timeout" | "tcp-keepalive" => {
                let current = self.settings(0).into_iter().find(|(known, _)| *known == name);
                if current.is_none_or(|(_, current)| current != value) {
                    return Err("this server has no such feature");
                }
            }
            _ => return Err(IMMUTABLE),
        }
        Ok(())
    }
}

/// `100`, `64kb`, `1m`, `2gb` and so on, in bytes.
#[must_use]
pub fn parse_memory(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: usize = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("64kb", Some(65_536)),
            ("1M", Some(1_000_000)),
            ("2GB", Some(2 << 30)),
            ("x", None),
            ("1tb", None),
            ("-1", None),
            ("99999999999999999999gb", None),
        ] {
            assert_eq!(parse_memory(text), bytes, "{text}");
        }
    }

    #[test]
    fn every_setting_can_be_set_to_its_value_or_says_why_not() {
        let mut config = Config::default();
        for (name, value) in config.settings(0) {
            if let Err(why) = config.set(name, &value) {
                assert_eq!(why, IMMUTABLE, "{name}");
            }
        }
        assert!(config.set("appendonly", "yes").is_err());
        assert!(config.set("maxclients", "0").is_err());
    }
}
