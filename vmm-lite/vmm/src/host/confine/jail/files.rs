//! No access to files: Landlock, without exception.
//!
//! Open descriptors stay usable, and clients pass further ones, already open, in their requests.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    RulesetStatus, Scope,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Takes away from this thread, and from those that it starts, all access to files. Where the
/// kernel supports it, also listening on ports, and reaching abstract sockets and processes outside
/// of the jail.
///
/// # Errors
/// The kernel has no Landlock, or has it turned off.
pub fn close() -> Result<(), Failure> {
    let ruled = rules().map_err(|e| {
        format!("the kernel does not take away files (Landlock, Linux 5.13, lsm=landlock): {e}")
    })?;
    match ruled {
        RulesetStatus::NotEnforced => Err("the kernel has Landlock turned off (lsm=)".into()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

fn rules() -> Result<RulesetStatus, RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(ABI::V6))?;
    Ok(rules.create()?.restrict_self()?.ruleset)
}
