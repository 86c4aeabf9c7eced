//! See [`vmm_lite_fuzz::control_socket`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_lite_fuzz::control_socket::check(data));
