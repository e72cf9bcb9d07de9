//! The three macros. `cfg` in a macro's body would look at the features of the crate that uses it, so each exists twice.

/// Names a stretch of code; gives a guard that must be held: `let _span = span!("tcp input");`. Nested spans are
/// exclusive: while an inner one runs, the outer one's cycles stand still. `span!("name", subject)` says which packet or
/// request (a `u64`) it works on.
#[cfg(all(feature = "guest", not(exovm_without_spans)))]
#[macro_export]
macro_rules! span {
    ($name:literal $(,)?) => {
        $crate::span!($name, 0)
    };
    ($name:literal, $subject:expr $(,)?) => {{
        $crate::__site!(SITE, KIND_SPAN, $name);
        $crate::guest::enter(&SITE, $subject)
    }};
}

/// Notes that something happened: `event!("name", subject, argument)`, both `u64`. The subject is the number of the
/// packet or request it happened to, the argument is free.
#[cfg(all(feature = "guest", not(exovm_without_spans)))]
#[macro_export]
macro_rules! event {
    ($name:literal, $subject:expr, $argument:expr $(,)?) => {{
        $crate::__site!(SITE, KIND_EVENT, $name);
        $crate::guest::event(&SITE, $subject, $argument)
    }};
}

/// Adds to a number that only grows: `counter!("name", n)`, `n` a `u64`.
#[cfg(feature = "guest")]
#[macro_export]
macro_rules! counter {
    ($name:literal, $n:expr $(,)?) => {{
        $crate::__site!(SITE, KIND_COUNTER, $name);
        $crate::guest::counter(&SITE, $n)
    }};
}

/// Puts a site into the image's section.
#[cfg(feature = "guest")]
#[doc(hidden)]
#[macro_export]
macro_rules! __site {
    ($site:ident, $kind:ident, $name:literal) => {
        // SAFETY: the section holds `Site`s only, and this is one.
        #[used]
        #[unsafe(link_section = "exovm_sites")]
        static $site: $crate::abi::trace::Site =
            $crate::abi::trace::Site::new($crate::abi::trace::$kind, $crate::checked_name($name), line!());
    };
}

/// Names a stretch of code; gives a guard that must be held: `let _span = span!("tcp input");`. Nested spans are
/// exclusive: while an inner one runs, the outer one's cycles stand still. `span!("name", subject)` says which packet or
/// request (a `u64`) it works on.
#[cfg(any(not(feature = "guest"), exovm_without_spans))]
#[macro_export]
macro_rules! span {
    ($name:literal $(,)?) => {
        $crate::span!($name, 0)
    };
    ($name:literal, $subject:expr $(,)?) => {{
        const _: &str = $crate::checked_name($name);
        if false {
            let _: u64 = $subject;
        }
        $crate::Span { _not_send: ::core::marker::PhantomData }
    }};
}

/// Notes that something happened: `event!("name", subject, argument)`, both `u64`. The subject is the number of the
/// packet or request it happened to, the argument is free.
#[cfg(any(not(feature = "guest"), exovm_without_spans))]
#[macro_export]
macro_rules! event {
    ($name:literal, $subject:expr, $argument:expr $(,)?) => {{
        const _: &str = $crate::checked_name($name);
        if false {
            let _: (u64, u64) = ($subject, $argument);
        }
    }};
}

/// Adds to a number that only grows: `counter!("name", n)`, `n` a `u64`.
#[cfg(not(feature = "guest"))]
#[macro_export]
macro_rules! counter {
    ($name:literal, $n:expr $(,)?) => {{
        const _: &str = $crate::checked_name($name);
        if false {
            let _: u64 = $n;
        }
    }};
}

/// The sites of a stretch of time in which somebody else had the vCPU, for [`crate::ledger::Ledger::turn_over`] and the like:
/// `parts!("going", "away", "back")`.
#[cfg(feature = "guest")]
#[macro_export]
macro_rules! parts {
    ($going:literal, $away:literal, $back:literal) => {{
        $crate::__site!(GOING, KIND_SPAN, $going);
        $crate::__site!(AWAY, KIND_SPAN, $away);
        $crate::__site!(BACK, KIND_SPAN, $back);
        $crate::guest::parts(&GOING, &AWAY, &BACK)
    }};
}
