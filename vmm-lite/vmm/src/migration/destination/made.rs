//! A VM for one that is offered, before anything of it has arrived.

use super::{Offering, names::Reserved};
use crate::{
    devices::console::Console,
    migration::offered::{Needs, Offered},
    vm::Vm,
};
use migrate::offer::{Capabilities, Offer, Refusal, judge};
use std::time::Duration;
use vmm_lite_interface::INTERFACE_VERSION;

/// Why a VM is refused whose guest would lose its network without notice.
const SPOOFS: &str = "the VM may send packets from addresses which are not its own: this needs \
    `receive --allow-spoofing`, or `standby` with that option";

/// See the module.
#[derive(Debug)]
pub(crate) struct Made {
    pub vm: Vm,
    /// Its name here.
    pub name: Reserved,
    /// How long it takes to apply a vCPU's state.
    pub apply: Duration,
}

impl Made {
    /// Judges an offer and makes a VM for it.
    pub fn new(
        offer: &Offer,
        offered: Offered,
        offering: &Offering,
        console: Console,
    ) -> Result<Self, Refusal> {
        let cannot = |e: &dyn std::error::Error| Refusal::Prepare(crate::host::with_causes(e));
        let Offered { mut identity, features, needs: Needs { mtu, spoofs }, .. } = offered;
        let here = offering.resources.host().features().map_err(|e| cannot(&e))?;
        let capabilities = Capabilities {
            memory_max: offering.memory_max,
            interface_versions: vec![INTERFACE_VERSION],
            network: offering.resources.has_tap(),
            missing_features: features.missing_from(&here),
        };
        judge(offer, &capabilities)?;
        let (name, here) =
            Reserved::new(&offering.names, &identity.name).map_err(|e| cannot(&*e))?;
        identity.name = here;
        let vm = Vm::prepare_with(&offering.resources, identity, console, None)
            .map_err(|e| cannot(&e))?;
        vm.check_link(mtu).map_err(|e| cannot(&e))?;
        match (spoofs, offering.allow_spoofing) {
            (true, true) => vm.hold().map_err(|e| cannot(&e))?.allow_spoofing(),
            (true, false) => return Err(Refusal::Prepare(SPOOFS.into())),
            (false, _) => {}
        }
        let apply = vm.hold().and_then(|mut held| {
            held.limit(&offering.rates);
            held.warm_up()
        });
        let apply = apply.map_err(|e| cannot(&e))?;
        Ok(Self { vm, name, apply })
    }
}
