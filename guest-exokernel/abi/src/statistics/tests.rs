//! Buckets, and that what is counted is described once.

use super::*;

#[test]
fn bucket_holds_what_is_at_most_its_power_of_two() {
    for (value, expected) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11)] {
        assert_eq!(bucket(value), expected, "{value}");
    }
    assert_eq!(bucket(u64::MAX), BUCKETS - 1);
}

#[test]
fn groups_have_a_word_for_each_description_and_no_name_twice() {
    let groups = [
        (TcpStatistics::DESCRIPTIONS, TcpStatistics::default().words().count()),
        (LinkStatistics::DESCRIPTIONS, LinkStatistics::default().words().count()),
        (HttpStatistics::DESCRIPTIONS, HttpStatistics::default().words().count()),
        (CacheStatistics::DESCRIPTIONS, CacheStatistics::default().words().count()),
        (ForwardStatistics::DESCRIPTIONS, ForwardStatistics::default().words().count()),
        (UdpStatistics::DESCRIPTIONS, UdpStatistics::default().words().count()),
    ];
    for (descriptions, words) in groups {
        assert_eq!(descriptions.len(), words);
        for (number, one) in descriptions.iter().enumerate() {
            assert!(descriptions[..number].iter().all(|other| other.name != one.name), "{one:?}");
            assert!(one.help.trim().ends_with(['.', ')']), "{one:?}");
        }
    }
}
