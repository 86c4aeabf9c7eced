//! See [`vmm_lite_fuzz::replication`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_lite_fuzz::replication::check(data));
