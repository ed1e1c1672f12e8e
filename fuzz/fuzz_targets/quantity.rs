//! Quantities and Go's durations: what is read prints as something that reads the same, wherever it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quantity::Quantity;

fuzz_target!(|text: &str| {
    let durations = [agent::fuzzing::go_duration(text), netproxy::fuzzing::go_duration(text)];
    // Where a configuration is refused, a request for a time below zero asks for none.
    let here = apiserver::go_duration::parse(text).ok().filter(|read| !text.starts_with('-') || !read.is_zero());
    assert!(durations.iter().all(|there| *there == here || text.starts_with('-')), "{here:?} {durations:?}");
    let Ok(read) = text.parse::<Quantity>() else { return };
    let printed = read.to_string();
    let again: Quantity = printed.parse().expect("what was printed parses");
    assert_eq!((again, again.to_string()), (read, printed));
    assert!((read - read).is_zero());
    let opposite = text.strip_prefix('-').map_or_else(|| format!("-{}", text.trim_start_matches('+')), str::to_owned);
    let opposite: Quantity = opposite.parse().expect("the same without its sign");
    assert_eq!(opposite.nanos(), -read.nanos());
    assert!(i128::from(read.value()).abs() * 1_000_000_000 >= read.nanos().abs(), "away from zero");
});
