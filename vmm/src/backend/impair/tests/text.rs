//! What `--impair` takes, and what it says of what it does not take.

use super::*;

fn parse(text: &str) -> Result<Impairments, String> {
    text.parse()
}

#[test]
fn faults_are_for_both_directions_or_one() {
    let both = parse("loss=1%,burst=4,delay=20ms,jitter=2ms,seed=7").expect("good");
    let faults = Faults { loss: 0.01, burst: 4.0, delay: 20 * MS, jitter: 2 * MS, ..Faults::default() };
    assert_eq!(both, Impairments { tx: faults, rx: faults, seed: 7 });
    let one = parse("tx:loss=0.1%, rx:rate=10mbit,rx:queue=50,rx:corrupt=2%").expect("good");
    assert_eq!(one.tx, Faults { loss: 0.001, ..Faults::default() });
    assert_eq!(
        one.rx,
        Faults { rate_bits: Some(10_000_000), queue_packets: 50, corrupt: 0.02, ..Faults::default() }
    );
    assert_eq!(one.seed, 1, "the same command does the same each time");
    let times = parse("delay=1.5s,late=150us,reorder=3%,duplicate=100%").expect("good").tx;
    assert_eq!((times.delay, times.late), (1500 * MS, Duration::from_micros(150)));
    assert_eq!((times.reorder, times.duplicate), (0.03, 1.0));
    let marks = parse("tx:mark=10%,rx:rate=10mbit,rx:mark-from=20").expect("good");
    assert_eq!(marks.tx, Faults { mark: 0.1, ..Faults::default() });
    assert_eq!((marks.rx.mark, marks.rx.mark_from_packets), (0.0, Some(20)));
    assert_eq!(parse("rate=2.5gbit").expect("good").rx.rate_bits, Some(2_500_000_000));
}

#[test]
fn nonsense_says_what_is_wrong_and_what_to_say() {
    for (text, expected) in [
        ("", "KEY=VALUE"),
        ("loss", "KEY=VALUE"),
        ("lost=1%", "loss="),
        ("loss=1", "loss=1%"),
        ("loss=101%", "0% to 100%"),
        ("loss=-1%", "0% to 100%"),
        ("loss=nan%", "0% to 100%"),
        ("delay=20", "delay=20ms"),
        ("delay=ms", "delay=20ms"),
        ("delay=11s", "at most 10 s"),
        ("delay=1e3ms", "delay=20ms"),
        ("jitter=2ms", "make the delay longer"),
        ("delay=1ms,rx:jitter=2ms", "make the delay longer"),
        ("rate=10", "rate=10mbit"),
        ("rate=0mbit", "at least 1kbit"),
        ("queue=0", "1 to 100000"),
        ("mark=20", "mark=1%"),
        ("rate=1mbit,mark-from=0", "1 to 100000"),
        ("mark-from=20", "rate=10mbit"),
        ("tx:rate=1mbit,mark-from=20", "rate=10mbit"),
        ("burst=3", "loss=1%"),
        ("burst=0,loss=1%", "1 to 1000"),
        ("up:loss=1%", "tx: is what the guest sends"),
        ("tx:seed=1", "both directions"),
        ("seed=x", "seed=7"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}
