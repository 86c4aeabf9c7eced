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
        if self.rang(Doorbell::CONSOLE) {
            Exits::count(&exits.console);
            while let Some(held) = devices.print(vcpus)? {
                if control.pause_wanted() {
                    return Ok(Served::Stop(Stop::Paused { quiescent: false }));
                }
                wait::for_output(vcpus, member, held);
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
            vcpus.requests.set_invariant(self.note_invariant(devices).ok());
            control.changed();
        }
        if self.rang(Doorbell::FAULT) {
            let fault = GuestFault::copy(&vcpus.ram.control_page().fault);
            return Ok(Served::Stop(last_output(devices, vcpus, member, End::Failed(fault))));
        }
        if self.rang(Doorbell::EXIT) {
            let code = vcpus.ram.control_page().exit_code.load(SeqCst);
            return Ok(Served::Stop(last_output(devices, vcpus, member, End::Exited(code))));
        }
        Ok(Served::All)
    }

    fn rang(&self, bit: Doorbell) -> bool {
        self.unserved.contains(bit)
    }

    fn done(&mut self, bit: Doorbell) {
        self.unserved.0 &= !bit.0;
    }
}

/// Sends and prints what a guest that ends has left.
fn last_output(devices: &mut Devices, vcpus: &Vcpus, member: usize, end: End) -> Stop {
    devices.send_rest(vcpus);
    devices.flush(vcpus, member);
    Stop::Ended(end)
}
