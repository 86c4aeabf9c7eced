//! No way to files: Landlock, with no exception.
//!
//! What is open stays open, and what a client hands over in a request comes open.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    RulesetStatus, Scope,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Takes this thread, and those that it starts, every way to a file; the ports that it could listen
/// on, and the abstract sockets and processes beside it that it could reach, where the kernel knows
/// how to.
///
/// # Errors
/// A kernel without Landlock, or one that has it turned off.
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
