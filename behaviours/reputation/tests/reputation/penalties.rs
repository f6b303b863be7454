use std::collections::BTreeSet;

use reputation::penalties::{CUT_AT, Class, TABLE, UNKNOWN, of};

/// What the siblings and the event loop report today.
const WORDS: &str = "
    malformed bad-signature equivocation flood bad-answer
    empty-batch oversize-batch wrong-author wrong-receiver absurd-time unwelcome unknown-receipt duplicate-receipt missing-receipt
    malformed-frame oversized-frame invalid-card invalid-goodbye wrong-peer stale-boot conflicting-card no-hello too-many-links
    second-stream unasked-answer surplus-cards unmatched-card
    rendezvous-malformed rendezvous-wrong-message rendezvous-oversize-list rendezvous-bad-record rendezvous-foreign-namespace
    wrong-answer forged-statement foreign-statement absurd-report
    invalid-offer invalid-manifest conflicting-offer corrupt-chunk invalid-seal invalid-request invalid-status
    register-flood daily-quota forged-envelope rate-exceeded";

#[test]
fn every_known_kind_has_its_row() {
    for word in WORDS.split_whitespace() {
        assert_eq!(of(word).1.kind, word);
    }
    assert_eq!(of("reason-9"), (TABLE.len(), &UNKNOWN));
}

#[test]
fn kinds_stand_once_and_worst_first() {
    let kinds = TABLE.iter().map(|row| row.kind).collect::<BTreeSet<_>>();
    assert_eq!(kinds.len(), TABLE.len());
    assert!(TABLE.windows(2).all(|pair| pair[0].class >= pair[1].class));
    assert!(TABLE.iter().all(|row| (row.class == Class::Trifle) == (row.once_in > 0)));
}

#[test]
fn the_readme_shows_the_table() {
    let readme = include_str!("../../README.md");
    let expected = TABLE.iter().chain([&UNKNOWN]).map(|row| {
        let kind = if row == &UNKNOWN { row.kind.to_owned() } else { format!("`{}`", row.kind) };
        let tolerated = match row.class.tolerated() {
            None => "any number".to_owned(),
            Some(1) => "none".to_owned(),
            Some(number) => number.to_string(),
        };
        let gap = if row.once_in == 0 { "each time".to_owned() } else { format!("once in {} s", row.once_in) };
        format!("| {kind} | {} | {tolerated} | {} | {gap} | {} |", row.class.word(), row.class.points(), row.what)
    });
    let shown = readme.lines().skip_while(|line| !line.starts_with("| kind | class")).skip(2);
    let shown = shown.take_while(|line| line.starts_with('|')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(shown, expected.collect::<Vec<_>>());
    assert!(readme.contains(&format!("At {CUT_AT} the peer is *cut*")));
}
