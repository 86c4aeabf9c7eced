//! See [`vmm_lite_fuzz::input_log`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_lite_fuzz::input_log::check(data));
