//! See [`vmm_lite_fuzz::control_page`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_lite_fuzz::control_page::check(data));
