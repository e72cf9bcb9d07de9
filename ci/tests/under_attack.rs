//! Attacks on Cheetah's TCP/IP, from the wire: those who come with a request are served all the same, in bounded memory, and the
//! guest's statistics say what it is. A moment of each; `exovm bench attack` measures.

use exovm_ci::under_attack::{Attack, Outcome, Span, serve};
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::time::Duration;

/// A moment; where a flood takes most of the line, until the honest, of whose segments it loses half, are served all the same.
const MOMENT: Span =
    Span { least: Duration::from_millis(1_500), answered: [6, 2], most: Duration::from_secs(60) };
/// By which guest and VMM may grow under any of them: receive buffers, records and places for connections have bounds.
const MOST_GROWTH_KIB: i64 = 64 << 10;

fn attacked(attack: Attack) -> Outcome {
    let site = Site::new().file("small", "small").pattern_file("large", 1, 1 << 20);
    let guest = Guest::serving(&site);
    let outcome = serve(&guest, Some(attack), "/small", "/large", MOMENT);
    let (kept, new) = (&outcome.kept, &outcome.new);
    let (frames, counted) = (outcome.attack_frames, &outcome.counted);
    println!("{attack}: {frames} frames, {} and {} answered, {counted:?}", kept.answered(), new.answered());
    assert!(outcome.attack_frames > 20, "{attack:?}: an attack of {} frames", outcome.attack_frames);
    assert!(kept.answered() > 5 && new.answered() >= 2, "{attack}: too few were answered");
    assert_eq!(kept.broken, 0, "{attack:?}: a connection that stands is not harmed");
    assert!(outcome.grown_kib < MOST_GROWTH_KIB, "{attack:?}: {} KiB more", outcome.grown_kib);
    let named = attack.named_by().iter().any(|(layer, name)| outcome.count(layer, name) > 0);
    assert!(named, "{attack:?}: none of {:?} says so: {:?}", attack.named_by(), outcome.counted);
    // It has recovered, and nothing of it stays.
    assert_eq!(guest.get("/small").text(), "small");
    guest.stop();
    outcome
}

#[test]
fn syn_flood_is_counted_and_survived() {
    in_namespace!(|| {
        let outcome = attacked(Attack::SynFlood);
        assert!(outcome.connections < 4_096, "{} connections", outcome.connections);
        // The half-open ones' places are all taken, and nobody gives way: newcomers come in by cookies.
        assert!(outcome.count("tcp", "syn_cookies_sent") > 0);
        assert!(outcome.count("tcp", "syn_cookies_accepted") > 0, "nobody came in by a cookie");
        assert_eq!(outcome.count("tcp", "half_open_evicted"), 0);
    });
}

#[test]
fn blind_segments_end_and_add_nothing() {
    in_namespace!(|| {
        let outcome = attacked(Attack::Blind);
        assert_eq!(outcome.count("tcp", "reset_by_peer"), 0);
    });
}

#[test]
fn closed_windows_keep_nobody_out() {
    in_namespace!(|| {
        let outcome = attacked(Attack::ZeroWindow);
        assert!(outcome.count("tcp", "windows_held") > 0);
    });
}

#[test]
fn tiny_segments_are_not_as_tiny_as_asked_for() {
    in_namespace!(|| {
        let outcome = attacked(Attack::TinySegments);
        let (bytes, segments) =
            (outcome.count("tcp", "data_octets_out"), outcome.count("tcp", "data_segs_out"));
        assert!(bytes > 4 * segments, "{bytes} bytes in {segments} segments");
        assert!(outcome.count("tcp", "small_mss_in") >= 4);
    });
}

#[test]
fn slow_readers_keep_nobody_out() {
    in_namespace!(|| {
        let outcome = attacked(Attack::SlowRead);
        assert!(outcome.count("tcp", "small_segs_out") > 100);
    });
}

#[test]
fn split_acknowledgments_keep_nobody_out() {
    in_namespace!(|| drop(attacked(Attack::AckSplitting)));
}

#[test]
fn optimistic_acknowledgments_keep_nobody_out() {
    in_namespace!(|| {
        let outcome = attacked(Attack::OptimisticAcks);
        // Whoever lies is reset, and comes again.
        let (found, withheld) =
            (outcome.count("tcp", "optimistic_acks"), outcome.count("tcp", "segs_withheld"));
        assert!(found > 0 && found <= withheld, "{found} of {withheld}");
        assert!(outcome.count("tcp", "out_rsts") >= found);
    });
}

#[test]
fn overlapping_fragments_are_given_up() {
    in_namespace!(|| drop(attacked(Attack::OverlappingFragments)));
}

#[test]
fn guessed_path_mtus_are_not_believed() {
    in_namespace!(|| {
        let outcome = attacked(Attack::PathMtu);
        assert_eq!(outcome.count("tcp", "path_mtu_reduced"), 0);
    });
}
