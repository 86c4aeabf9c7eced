//! What the guest asks for with the doorbell.

use super::{
    End, Exits, GuestFault, Runner, Vcpus,
    run::{Served, Stop},
    wait,
};
use crate::devices::{Devices, Violation};
use std::sync::atomic::Ordering::SeqCst;
use vmm_lite_interface::doorbell::Doorbell;

impl Runner {
    /// Serves the bits that the guest rang, in their order; each is cleared when it is done.
    pub(super) fn serve(
        &mut self,
        devices: &mut Devices,
        vcpus: &Vcpus,
        member: usize,
    ) -> Result<Served, Violation> {
        if self.unserved == Doorbell::default() {
            return Ok(Served::All);
        }
        let (control, exits) = (&vcpus.control, &vcpus.exits);
        // The guest has exited, which is all that was wanted.
        self.done(Doorbell::SAMPLES);
        if self.rang(Doorbell::CONSOLE) {
            Exits::count(&exits.console);
            while let Some(blocked) = devices.print(vcpus)? {
                if control.pause_wanted() {
                    return Ok(Served::Stop(Stop::Paused { quiescent: false }));
                }
                wait::for_output(vcpus, member, &blocked);
            }
            self.done(Doorbell::CONSOLE);
        }
        // A wait begins with the same service; a guest that says that it is quiescent has hinted
        // its receive buffers as not needed.
        if self.rang(Doorbell::NET) {
            Exits::count(&exits.net);
            if !self.rang(Doorbell::WAIT) && !self.rang(Doorbell::QUIESCED) {
                for device in devices.bus.devices_mut() {
                    device.serve(vcpus.memory_at_exit())?;
                }
                devices.rings.fill(vcpus.memory_at_exit(), vcpus.console())?;
            }
            self.done(Doorbell::NET);
        }
        if self.rang(Doorbell::WAIT) {
            Exits::count(&exits.wait);
            // After any end of the wait the guest checks by itself: also one that was paused in its
            // wait.
            self.done(Doorbell::WAIT);
            if self.unserved == Doorbell::default() {
                self.stuck = false;
                self.wait = Some(vcpus.ram.control_page().wake_deadline_ns.load(SeqCst));
            }
        }
        if self.rang(Doorbell::QUIESCED) {
            Exits::count(&exits.quiesced);
            self.done(Doorbell::QUIESCED);
            devices
                .bus
                .devices_mut()
                .try_for_each(|device| device.flush(vcpus.memory_at_exit()))?;
            let answer = vcpus.ram.control_page().quiesce_answer.load(SeqCst);
            // An answer that comes too late, after a kick and a resume, is ignored.
            if control.quiesce_wanted() && answer == vcpus.requests.quiesce_number() {
                return Ok(Served::Stop(Stop::Paused { quiescent: true }));
            }
        }
        if self.rang(Doorbell::RECLAIMED) {
            self.done(Doorbell::RECLAIMED);
            // A move is near. The capture reads what cannot be read now.
            let answer = vcpus.ram.control_page().reclaim_answer.load(SeqCst);
            vcpus.requests.set_reclaimed(answer, self.note_invariant(devices).ok());
            control.changed();
        }
        Ok(match ending(self.unserved, vcpus) {
            Some(end) => Served::Stop(last_output(devices, vcpus, member, end)),
            None => Served::All,
        })
    }

    fn rang(&self, bit: Doorbell) -> bool {
        self.unserved.contains(bit)
    }

    fn done(&mut self, bit: Doorbell) {
        self.unserved.0 &= !bit.0;
    }
}

/// How a guest ended that rang the doorbell with these bits.
pub(super) fn ending(rung: Doorbell, vcpus: &Vcpus) -> Option<End> {
    let control = vcpus.ram.control_page();
    if rung.contains(Doorbell::FAULT) {
        return Some(End::Failed(GuestFault::copy(&control.fault)));
    }
    rung.contains(Doorbell::EXIT).then(|| End::Exited(control.exit_code.load(SeqCst)))
}

/// Sends and prints what a guest that ends has left.
fn last_output(devices: &mut Devices, vcpus: &Vcpus, member: usize, end: End) -> Stop {
    devices.send_rest(vcpus);
    devices.flush(vcpus, member);
    Stop::Ended(end)
}
