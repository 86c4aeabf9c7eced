//! What a failed attempt at a member of etcd means.

use crate::error::with_causes;
use etcd_client::Error;
use std::{error::Error as StdError, io};

/// Why an attempt failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The member, or this host, does not accept such a request.
    Refused(String),
    /// The request had no effect and will have none.
    NotSent(String),
    /// The request may have had its effect, or may have it later.
    Lost(String),
}

impl Failure {
    pub fn text(&self) -> &str {
        let (Self::Refused(text) | Self::NotSent(text) | Self::Lost(text)) = self;
        text
    }
}

/// gRPC's codes, as numbers: the crate that defines them is not a direct dependency.
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Error::GRpcStatus(status) = &error else {
            return of_transport(&error, error.to_string());
        };
        let said = status.message();
        match status.code() as i32 {
            UNAUTHENTICATED | PERMISSION_DENIED | INVALID_ARGUMENT => Self::Refused(format!(
                "{said}; the user needs a role with read and write permission for the prefix \
                 {}, see docs/arbiter.md",
                super::keys::PREFIX
            )),
            FAILED_PRECONDITION => Self::Refused(format!("{said}; leave out user and password")),
            RESOURCE_EXHAUSTED => {
                Self::Refused(format!("{said}; compact and defragment etcd, and disarm its alarm"))
            }
            // Members reject these before they propose anything.
            UNAVAILABLE if said.contains("no leader") => Self::NotSent(said.into()),
            _ => of_transport(status, said.to_owned()),
        }
    }
}

fn of_transport(error: &(dyn StdError + 'static), said: String) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            // Only `connect` reports this one.
            Some(io::ErrorKind::ConnectionRefused) => {
                return Failure::NotSent("connection refused".into());
            }
            // The TLS handshake: data that is not TLS, or a certificate that is not valid here.
            Some(io::ErrorKind::InvalidData) => return Failure::Refused(format!("TLS: {error}")),
            _ => cause = error.source(),
        }
    }
    let text = with_causes(error);
    Failure::Lost(if text.is_empty() { said } else { text })
}
