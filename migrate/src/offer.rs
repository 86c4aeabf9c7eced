//! What the source tells of the VM before it sends any of it, and why a destination may refuse it.

use crate::{
    ReceiverId,
    wire::{HEADER_SIZE, Kind, Message},
};
use serde::{Deserialize, Serialize};

/// A VM, as the source offers it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// The receiver that it is made to, from its `Welcome`: a recorded offer is not valid for
    /// another process. The source's state machine fills it in.
    pub receiver: ReceiverId,
    /// Name of the VM.
    pub name: String,
    /// Its memory, in bytes.
    pub memory_size: u64,
    /// Version of the guest interface that its image was built for.
    pub interface_version: u32,
    /// Whether it has a network device.
    pub network: bool,
    /// Opaque to this crate: the VM manifest, with the CPU features that the guest may rely on.
    pub identity: Vec<u8>,
}

/// What a destination has and judges an offer by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Capabilities {
    /// Most memory that it gives a VM, in bytes.
    pub memory_max: u64,
    /// Guest interface versions that it knows.
    pub interface_versions: Vec<u32>,
    /// Whether it has a network device for the VM.
    pub network: bool,
    /// CPU features that the guest may rely on and this host lacks. The caller, which knows the
    /// CPU, fills them in.
    pub missing_features: Vec<String>,
}

/// Why a destination refuses a VM. The source has sent nothing of the VM by then.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another version of the protocol.
    #[error(
        "the destination speaks protocol version {theirs}, the source {ours}: run the same \
         vmm-lite on both"
    )]
    Version {
        /// The source's.
        ours: u16,
        /// The destination's.
        theirs: u16,
    },
    /// A guest interface that the destination does not know.
    #[error(
        "the image was built for guest interface {wanted}, and the destination knows {known:?}"
    )]
    Interface {
        /// The image's.
        wanted: u32,
        /// Those it knows.
        known: Vec<u32>,
    },
    /// The CPU lacks features that the guest may rely on: their names, and last the number of
    /// further ones if the message has no room for all.
    #[error("the destination's CPU lacks features that the guest has seen: {}", .0.join(", "))]
    Features(Vec<String>),
    /// Not enough memory.
    #[error(
        "the VM needs {needed} bytes of memory, and the destination gives at most {available} \
         (--memory-max)"
    )]
    Memory {
        /// The VM's.
        needed: u64,
        /// What the destination has.
        available: u64,
    },
    /// The VM needs a network device and the destination has none.
    #[error("the VM has a network, and the destination was given no TAP device (--tap)")]
    Network,
    /// The destination could not make the VM.
    #[error("the destination cannot make the VM: {0}")]
    Prepare(String),
    /// The destination is busy with another VM.
    #[error("the destination is receiving another VM")]
    Busy,
}

/// Judges an offer.
///
/// # Errors
/// The first reason to refuse it.
pub fn judge(offer: &Offer, have: &Capabilities) -> Result<(), Refusal> {
    if !have.interface_versions.contains(&offer.interface_version) {
        return Err(Refusal::Interface {
            wanted: offer.interface_version,
            known: have.interface_versions.clone(),
        });
    }
    if !have.missing_features.is_empty() {
        return Err(lacking(&have.missing_features));
    }
    if offer.memory_size > have.memory_max {
        return Err(Refusal::Memory { needed: offer.memory_size, available: have.memory_max });
    }
    if offer.network && !have.network {
        return Err(Refusal::Network);
    }
    Ok(())
}

/// Refuses because of these features: as many by name as the message has room for, then the number
/// of the others.
fn lacking(features: &[String]) -> Refusal {
    let naming = |n| {
        let (named, others) = features.split_at(n);
        let more = (!others.is_empty()).then(|| format!("and {} more", others.len()));
        Refusal::Features(named.iter().cloned().chain(more).collect())
    };
    let fits = |why: &Refusal| {
        let message = Message::Refuse(why.clone()).encode();
        message.len() <= HEADER_SIZE + Kind::Refuse.most() as usize
    };
    (1..=features.len()).rev().map(naming).find(fits).unwrap_or_else(|| naming(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Header, decode};

    /// What the source receives about `count` missing features.
    fn told(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
        let offer = Offer {
            receiver: ReceiverId::default(),
            name: "vm".into(),
            memory_size: 0,
            interface_version: 1,
            network: false,
            identity: Vec::new(),
        };
        let have = Capabilities {
            memory_max: 0,
            interface_versions: vec![1],
            network: false,
            missing_features: (0..count).map(name).collect(),
        };
        let bytes = Message::Refuse(judge(&offer, &have).unwrap_err()).encode();
        let (header, body) = bytes.split_first_chunk().unwrap();
        let header = Header::decode(header).expect("a body within its kind's limit");
        match decode(&header, body, 0) {
            Ok(Message::Refuse(Refusal::Features(told))) => told,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_names_the_features_that_it_has_room_for() {
        let name = |n| format!("cpuid 0x80000001.0 ecx[{n:03}]");
        // All of them, up to the last that fits: 27 bytes and their length each, plus three bytes
        // for their number and the refusal's tag.
        let most = (4096 - 3) / 28;
        let all: Vec<_> = (0..most).map(name).collect();
        assert_eq!(told(most, name), all);
        let told_of_one_more = told(most + 1, name);
        assert_eq!(told_of_one_more, [&all[..most - 1], &["and 2 more".into()]].concat());
        let said = Refusal::Features(told_of_one_more).to_string();
        assert!(said.ends_with("ecx[144], and 2 more"), "{said}");
        // As many features as there are in the CPUID words that are compared.
        let some = told(320, name);
        assert_eq!(some.last(), Some(&format!("and {} more", 320 - (some.len() - 1))));
        assert_eq!(told(3, |_| "n".repeat(5000)), ["and 3 more"]);
    }
}
