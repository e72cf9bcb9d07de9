//! The macros in a crate that forbids unsafe code, as the protocol crates do, without the feature `guest`.
#![forbid(unsafe_code)]

#[cfg(not(feature = "guest"))]
#[test]
fn without_the_feature_arguments_are_checked_but_not_evaluated() {
    fn never() -> u64 {
        panic!("evaluated")
    }
    exos_trace::start();
    let _span = exos_trace::span!("outer");
    let inner = exos_trace::span!("inner", never());
    exos_trace::event!("event", never(), never());
    exos_trace::counter!("counter", never());
    drop(inner);
    assert_eq!(size_of::<exos_trace::Span>(), 0);
}
