#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exovm_fuzz_targets::groups::groups(bytes));
