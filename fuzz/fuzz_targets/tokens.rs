//! Credentials: service account tokens, bootstrap tokens (as node and server read them), files of users.
#![no_main]

use auth::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (which, rest) = text.split_at_checked(1).unwrap_or(("", text));
    match which {
        "a" => fuzzing::authorization(rest),
        "u" => fuzzing::unsigned(rest),
        "s" => fuzzing::signed(rest),
        "f" => fuzzing::files(rest),
        "c" => agent::fuzzing::cluster_info(rest),
        _ => {
            let token = rest.split('\n').next().unwrap_or_default();
            assert_eq!(fuzzing::bootstrap_secret(rest), agent::fuzzing::bootstrap_token(token));
        }
    }
});
