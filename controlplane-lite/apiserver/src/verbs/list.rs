//! GET a collection: consistent pages out of the watch cache.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde::{Deserialize, Serialize};

use crate::body::{Body, MAX_BODY};
use crate::call::Call;
use crate::options::{self, ListOptions, VersionMatch};
use crate::registry::Resource;
use crate::respond;
use crate::snapshots::{self, Loan, Payer, Room, SHORT_LIST};
use crate::status::ApiError;
use scheme::selector::{FieldSelector, FieldTerm, LabelSelector};
use storage::watch_cache::{CacheError, Filter, ListQuery, Listing};
use storage::{Object, Revision};

/// Answers one page, or everything.
///
/// # Errors
/// 400 for selectors and tokens that do not parse, 410 for versions too old, 429 when too much is being sent to the
/// user already, 504 for versions not reached.
pub async fn list(call: Call, payer: Option<Payer>) -> Result<Response<Body>, ApiError> {
    let options = options::list(&call.query, false)?;
    let (page, loan) = held_page(&call, &options, payer.as_ref()).await?;
    answer(call, page, loan)
}

/// A page, and room for what it keeps of the past.
///
/// # Errors
/// As [`page`]; 429 when there is no room for a while.
pub async fn held_page(
    call: &Call,
    options: &ListOptions,
    payer: Option<&Payer>,
) -> Result<(respond::Page, Option<Loan>), ApiError> {
    let bytes = |page: &respond::Page| page.items.iter().map(|object| object.json_bytes().len()).sum();
    let room = Room { short: SHORT_LIST, expected: expected(call, options) };
    snapshots::hold(&call.server, payer, room, || page(call, options), bytes).await
}

/// Bytes that a page will keep, as far as can be told before it is read from the store: as much as one of now, and no
/// little, because nobody knows how much there was.
fn expected(call: &Call, options: &ListOptions) -> usize {
    if !is_stored(&call.resource, options) {
        return 0;
    }
    let (mut bytes, mut objects) = (0, 0);
    call.resource.cache().for_each(&Filter::all().in_namespace(&call.info.namespace), |object| {
        bytes += object.json_bytes().len();
        objects += 1;
    });
    let page = if options.limit == 0 { objects } else { options.limit.min(objects) };
    (bytes / objects.max(1) * page).max(MAX_BODY)
}

/// Whether a list is read from the store: of what the caches do not remember, of which nothing is shared.
pub fn is_stored(resource: &Resource, options: &ListOptions) -> bool {
    exactly(options).is_ok_and(|at| at.is_some_and(|at| !resource.cache().remembers(at)))
}

/// The revision of which exactly a list is asked for; none for one of now, or of any time since a revision. A page of a
/// version is a page of exactly that one, as upstream
/// (staging/src/k8s.io/apiserver/pkg/storage/cacher/delegator/interface.go).
///
/// # Errors
/// 400 for versions and tokens that do not parse.
fn exactly(options: &ListOptions) -> Result<Option<Revision>, ApiError> {
    if !options.continue_token.is_empty() {
        let token = ContinueToken::decode(&options.continue_token)?;
        return Ok(u64::try_from(token.rv).ok().map(Revision));
    }
    let exact = options.version_match.map_or(options.limit > 0, |of| of == VersionMatch::Exact);
    Ok(options.version()?.filter(|version| exact && *version > 0).map(Revision))
}

/// Answers a page, which holds the room until it is sent.
///
/// # Errors
/// 406 when the client accepts nothing the server speaks.
pub fn answer(call: Call, page: respond::Page, loan: Option<Loan>) -> Result<Response<Body>, ApiError> {
    let mut response = respond::list(call, page)?;
    if let Some(loan) = loan {
        response.extensions_mut().insert(loan);
    }
    Ok(response)
}

/// The filter of a request: path, label selector and field selector.
///
/// # Errors
/// 400 for selectors that do not parse or name fields that cannot be selected.
pub fn filter(call: &Call, options: &ListOptions) -> Result<Filter, ApiError> {
    let bad = |e: scheme::selector::SelectorError| ApiError::bad_request(e.to_string());
    let labels = LabelSelector::parse(&options.label_selector).map_err(bad)?;
    let mut fields = FieldSelector::parse(&call.kind, &options.field_selector).map_err(bad)?;
    if call.resource.converter().is_some() {
        fields.terms.retain(|term| !is_converted(term));
    }
    if let Some(conversion) = &call.kind.conversion {
        fields.terms.iter_mut().for_each(|term| term.field = (conversion.stored_field)(&term.field));
    }
    let mut filter = Filter::all().in_namespace(&call.info.namespace);
    if let Some(namespace) = fields.exact("metadata.namespace").filter(|n| !n.is_empty()) {
        if !call.info.namespace.is_empty() && namespace != call.info.namespace {
            return Ok(filter.matching(|_| false));
        }
        filter = filter.in_namespace(namespace);
    }
    if !call.info.name.is_empty() {
        filter = filter.named(&call.info.name);
    } else if let Some(name) = fields.exact("metadata.name") {
        filter = filter.named(name);
    }
    // One more exact field is indexed by the cache; the others are asked one by one.
    let exact = fields.terms.iter().find(|t| t.equal && !t.field.starts_with("metadata."));
    if let Some(term) = exact {
        filter = filter.with_field(&term.field, &term.value);
    }
    if !labels.is_everything() || fields.terms.len() > usize::from(exact.is_some()) {
        let long = labels.requirements.len() + fields.terms.len() > SHORT_SELECTOR;
        let selected = move |object: &Object| {
            labels.matches(|key| object.label(key)) && fields.matches(|field| object.field(field))
        };
        filter = if long { filter.matching_apart(selected) } else { filter.matching(selected) };
    }
    Ok(filter)
}

/// Whether a term is about what a webhook may make of an object; whose it is and where, it leaves alone.
fn is_converted(term: &FieldTerm) -> bool {
    !term.field.starts_with("metadata.")
}

/// The fields that are selected after a webhook converted the objects; [`filter`] passes them by. None where the
/// objects are selected as they are stored.
///
/// # Errors
/// As [`filter`].
pub fn converted_fields(call: &Call, options: &ListOptions) -> Result<Option<FieldSelector>, ApiError> {
    if call.resource.converter().is_none() {
        return Ok(None);
    }
    let fields = FieldSelector::parse(&call.kind, &options.field_selector);
    let mut fields = fields.map_err(|error| ApiError::bad_request(error.to_string()))?;
    fields.terms.retain(is_converted);
    Ok(Some(fields).filter(|fields| !fields.terms.is_empty()))
}

/// Terms of a selector that are asked for all watches at once.
const SHORT_SELECTOR: usize = 16;

/// What a continue token holds; the wire form is base64 JSON as upstream's, opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContinueToken {
    v: String,
    /// The revision of the first page; -1 continues without consistency.
    rv: i64,
    start: String,
    /// When the first page was answered, in seconds; 0 when nobody said.
    #[serde(default)]
    t: i64,
}

/// A consistent list may take so long: then upstream has compacted its revision, however quiet the resource was.
const TOKEN_LIFETIME: i64 = 300;

impl ContinueToken {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Whether the revision is too old to be continued.
    fn expired(&self, now: i64) -> bool {
        self.rv > 0 && self.t > 0 && now.saturating_sub(self.t) > TOKEN_LIFETIME
    }

    /// Reads a token.
    ///
    /// # Errors
    /// 400 for what is none.
    pub fn decode(text: &str) -> Result<Self, ApiError> {
        let invalid = |why: String| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| invalid(e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
        match token.v.as_str() {
            "meta.k8s.io/v1" if token.rv != 0 && !token.start.is_empty() => Ok(token),
            "meta.k8s.io/v1" => Err(invalid("incorrect encoded start resourceVersion or key".into())),
            other => Err(invalid(format!("server does not recognize this encoded version {other:?}"))),
        }
    }
}

/// Reads one page for given options; deletecollection uses it too.
///
/// # Errors
/// As [`list`], but 429.
pub async fn page(call: &Call, options: &ListOptions) -> Result<respond::Page, ApiError> {
    let Some(fields) = converted_fields(call, options)? else { return stored_page(call, options).await };
    // How much of it is selected shows later: all of it is one page.
    let mut page = stored_page(call, &ListOptions { limit: 0, ..options.clone() }).await?;
    page.items.retain(|object| fields.matches(|field| object.field(field)));
    Ok(page)
}

async fn stored_page(call: &Call, options: &ListOptions) -> Result<respond::Page, ApiError> {
    let mut query = ListQuery { filter: filter(call, options)?, limit: options.limit, ..ListQuery::default() };
    let cache = call.resource.cache();
    if options.continue_token.is_empty() {
        query.at = at_least(call, options).await?;
        let listing = cache.list(&query).await?;
        return finish(call, listing, call.server.now().as_second()).await;
    }
    let token = ContinueToken::decode(&options.continue_token)?;
    if !options.resource_version.is_empty() && options.resource_version != "0" {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    let after = call.resource.absolute(&token.start);
    query.after = Some(after.map_err(|e| ApiError::bad_request(format!("continue key is not valid: {e}")))?);
    if token.expired(call.server.now().as_second()) {
        return Err(ApiError::expired_continue(ContinueToken { rv: -1, ..token }.encode()));
    }
    let begun = match u64::try_from(token.rv) {
        Ok(revision) => {
            query.at = Some(Revision(revision));
            token.t
        }
        Err(_) => {
            call.server.registry.fresh().await?;
            call.server.now().as_second()
        }
    };
    match cache.list(&query).await {
        Ok(listing) => finish(call, listing, begun).await,
        Err(error) if too_old(&error) => {
            let token = ContinueToken { rv: -1, ..token };
            Err(ApiError::expired_continue(token.encode()))
        }
        Err(error) => Err(error.into()),
    }
}

fn too_old(error: &CacheError) -> bool {
    use storage::StoreError;
    matches!(error, CacheError::Expired { .. } | CacheError::Store(StoreError::Compacted { .. }))
}

/// Makes the cache as fresh as the request demands; a revision only when it demands exactly that one.
async fn at_least(call: &Call, options: &ListOptions) -> Result<Option<Revision>, ApiError> {
    match options.version()? {
        Some(0) => Ok(None),
        None => Ok(call.server.registry.fresh().await.map(|_| None)?),
        Some(version) => {
            call.server.registry.cache().wait_until_fresh(Revision(version)).await?;
            exactly(options)
        }
    }
}

async fn finish(call: &Call, listing: Listing, begun: i64) -> Result<respond::Page, ApiError> {
    let rv = i64::try_from(listing.revision.0).unwrap_or(i64::MAX);
    let token = listing.next.as_ref().map(|key| ContinueToken {
        v: "meta.k8s.io/v1".into(),
        rv,
        start: call.resource.relative(key).to_owned(),
        t: begun,
    });
    Ok(respond::Page {
        items: call.converted(listing.items).await?,
        revision: listing.revision,
        continue_token: token.map(|t| t.encode()).unwrap_or_default(),
        remaining: listing.remaining,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_survive_and_garbage_does_not() {
        let token = ContinueToken { v: "meta.k8s.io/v1".into(), rv: 7, start: "a/b".into(), t: 1000 };
        assert!(!token.expired(1300) && token.expired(1301));
        assert!(!ContinueToken { rv: -1, ..ContinueToken::decode(&token.encode()).unwrap() }.expired(i64::MAX));
        let silent = ContinueToken::decode(&URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":7,"start":"a"}"#));
        assert!(!silent.unwrap().expired(i64::MAX));
        let back = ContinueToken::decode(&token.encode()).unwrap();
        assert_eq!((back.rv, back.start.as_str()), (7, "a/b"));
        for bad in ["", "x", "!!!", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"v9","rv":1,"start":"a"}"#)] {
            assert_eq!(ContinueToken::decode(bad).unwrap_err().code(), 400, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_token_is_judged(text in ".{0,60}") {
            let _ = ContinueToken::decode(&text);
        }
    }
}
