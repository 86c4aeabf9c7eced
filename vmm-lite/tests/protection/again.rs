//! A VM that has lost its last standby gets another one, without a user.

use crate::{arbiter::Kind, bed::Bed};
use nix::sys::signal::Signal;

const CLIENTS: usize = 2;

/// Waits until the VM has a standby again, and checks all that its clients know.
fn is_protected_again(bed: &mut Bed) {
    bed.until("in sync again", |r| r["standbys"][0]["in_sync"] == true).unwrap();
    bed.oracle.hears().unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
    bed.oracle.check().unwrap();
    bed.heard().unwrap();
}

#[test]
fn a_vm_that_is_alone_is_protected_again_by_a_standby_of_its_list() {
    let Some(mut bed) = Bed::new("protected again", Kind::File, CLIENTS) else { return };
    let back = bed.vmms[0].url(7100);
    let list = ["--standby", &back];
    bed.stand_by_with(None, &list, &bed.arbiter.name());
    // Nobody listens at the first one.
    let (there, nowhere) = (bed.there(), bed.vmms[1].url(7199));
    bed.protect_with(&["--standby", &nowhere, "--standby", &there]).unwrap();
    bed.oracle.hears().unwrap();

    // The standby dies, and is started anew.
    bed.signal(1, Signal::SIGKILL);
    bed.unprotected().unwrap();
    bed.until("refused by those that are not there", |r| {
        r["events"].to_string().contains("not protected by")
    })
    .unwrap();
    bed.stand_by_with(None, &list, &bed.arbiter.name());
    is_protected_again(&mut bed);

    // The primary dies, and on its host another standby is started.
    bed.signal(0, Signal::SIGKILL);
    bed.active = 1;
    bed.oracle.hears().unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
    bed.stand_by(None);
    is_protected_again(&mut bed);

    // And that one is as good as any.
    bed.signal(1, Signal::SIGKILL);
    bed.active = 0;
    bed.oracle.hears().unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
    bed.oracle.check().unwrap();
}
