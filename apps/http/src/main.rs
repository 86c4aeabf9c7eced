//! A small site with axum's routes, hyper's HTTP/1.1 and mio's polling, all unmodified from
//! crates.io.
//!
//! One thread serves all connections, and no code depends on whether it runs on Linux or as a
//! unikernel.

mod io;
mod metrics;
mod server;
mod site;

use metrics::Metrics;
use server::{Limits, Server};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const HELP: &str = "\
A small site that says how it is: / for people, /metrics for Prometheus.

Usage: http [--port PORT] [--connections N] [--idle SECONDS]

  --port PORT       TCP port to listen on; 0 takes a free one and prints it [default: 8080]
  --connections N   most at once; one takes about 16 KiB [default: 1000]
  --idle SECONDS    close connections that are silent for so long [default: 60]
  --help            print this

Try:  curl -i http://localhost:8080/metrics";

fn main() -> ExitCode {
    let Options { port, limits } = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("http: {error}; --help shows the options");
            return ExitCode::from(2);
        }
    };
    let metrics = Arc::new(Metrics::new());
    let served = Server::bind(port, limits, site::router(Arc::clone(&metrics)), metrics)
        .map_err(|e| format!("cannot listen on port {port}: {e}"))
        .and_then(|server| {
            println!("http: listening on http://{}", server.address());
            server.run().map_err(|e| format!("cannot continue: {e}"))
        });
    match served {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    port: u16,
    limits: Limits,
}

/// The options, or `None` if help is requested.
fn options() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let limits = Limits { connections: 1000, idle: Duration::from_secs(60) };
    let mut options = Options { port: 8080, limits };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Short('p') | Long("port") => options.port = parser.value()?.parse()?,
            Long("connections") => options.limits.connections = parser.value()?.parse()?,
            Long("idle") => {
                let seconds = parser.value()?.parse::<u32>()?.max(1);
                options.limits.idle = Duration::from_secs(seconds.into());
            }
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(options))
}
