//! Quantities and Go's durations: what is read prints as something that reads the same, wherever it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quantity::Quantity;

fuzz_target!(|text: &str| {
    let durations = [agent::fuzzing::go_duration(text), netproxy::fuzzing::go_duration(text)];
    let go = gojson::duration::parse(text).ok().and_then(|read| u64::try_from(read).ok());
    let go = go.map(std::time::Duration::from_nanos);
    assert!(durations.iter().all(|read| *read == go), "{go:?} {durations:?}");
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
