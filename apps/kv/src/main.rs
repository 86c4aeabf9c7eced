//! The `kv` server's command line.

use kv_core::config::{Config, parse_memory};
use kv_core::server::Server;
use std::process::ExitCode;

const USAGE: &str =
    "usage: kv [--port PORT] [--bind ADDRESS] [--maxmemory BYTES|64mb|…] [--maxclients N]
Without --maxmemory the limit is derived from the memory there is; 0 is no limit.";

fn main() -> ExitCode {
    let config = match config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("kv: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn config() -> Result<Config, lexopt::Error> {
    use lexopt::prelude::*;
    let mut config = Config::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Short('p') | Long("port") => config.port = parser.value()?.parse()?,
            Long("bind") => config.bind = parser.value()?.parse()?,
            Long("maxmemory") => {
                let text = parser.value()?.string()?;
                let bytes = parse_memory(&text)
                    .ok_or_else(|| format!("--maxmemory: `{text}` is no amount of memory"))?;
                config.maxmemory = Some(bytes);
            }
            Long("maxclients") => config.max_clients = parser.value()?.parse()?,
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(config)
}

fn serve(config: Config) -> std::io::Result<()> {
    let address = format!("{}:{}", config.bind, config.port);
    let server = Server::bind(config)
        .map_err(|e| std::io::Error::new(e.kind(), format!("listening on {address}: {e}")))?;
    println!(
        "kv: ready on {}, maxmemory {} bytes",
        server.local_addr()?,
        server.state().memory.limit
    );
    server.run()
}
