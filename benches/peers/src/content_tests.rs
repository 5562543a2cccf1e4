//! The check of what comes out sees what it is there to see.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::content::{Check, Compare, Source};

fn refused(compare: Compare, bytes: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| Check::new(1, 16, compare).take(bytes))).is_err()
}

#[test]
fn what_comes_out_is_taken_however_it_is_cut() {
    let stream: Vec<u8> = (0..6).flat_map(|n| Source::new(1, 16).at(n * 16).to_vec()).collect();
    for cut in 1..40 {
        let mut check = Check::new(1, 16, Compare::All);
        stream.chunks(cut).for_each(|part| check.take(part));
        check.end(96);
    }
}

#[test]
fn pieces_in_anothers_place_and_wrong_bytes_are_refused() {
    let mut stream: Vec<u8> = (0..2).flat_map(|n| Source::new(1, 16).at(n * 16).to_vec()).collect();
    assert!(!refused(Compare::All, &stream));
    assert!(refused(Compare::Names, &stream[16..]), "one is missing");
    assert!(refused(Compare::Names, Source::new(2, 16).at(0)), "another stream's");
    stream[31] ^= 1;
    assert!(refused(Compare::All, &stream), "the last byte");
    assert!(!refused(Compare::Names, &stream), "only names are compared");
}

#[test]
fn a_stream_that_repeats_is_told_from_one_that_stands_still() {
    let mut source = Source::new(0, 16);
    let mut check = Check::new(0, 16, Compare::All).repeating(32);
    for at in [0, 16, 0, 16] {
        check.take(source.at(at));
    }
    assert!(catch_unwind(AssertUnwindSafe(|| check.take(source.at(16)))).is_err());
}
