//! What a request line says: paths, queries, durations and continue tokens.
#![no_main]

use apiserver::options;
use apiserver::request_info::{Query, parse};
use apiserver::verbs::list::ContinueToken;
use http::Method;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let query = Query::parse(Some(query));
    let info = parse(&Method::GET, path, &query);
    let _ = info.authorization_name(&query);
    let _ = options::list(&query, true);
    let _ = gojson::duration::parse(text);
    let _ = ContinueToken::decode(text);
});
