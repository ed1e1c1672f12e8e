//! Lists whose items have to be decoded: as Tables, in YAML, in another version. They are made while they are sent,
//! some items at a time and apart from other requests: no copy of the whole exists, however long the list.

use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Map, Value, json};

use super::{GZIP_FROM, Page, gzip, maybe_gzip, meta_version, metadata_of, table_of, text};
use crate::answer::{Keeps, SLICE};
use crate::body::{Body, BodyError, raw};
use crate::call::Call;
use crate::negotiate::{self, Accept, Format, Shape};
use crate::status::ApiError;
use storage::Object;

/// The first part, which is also the longest but for an item's end: what is no longer is answered with its length.
const FIRST: usize = 128 * 1024;
const _: () = assert!(FIRST as u64 == GZIP_FROM && FIRST >= SLICE);

/// Answers a list in the form asked for.
pub(super) fn list(call: Call, page: Page, accept: Accept) -> Result<Response<Body>, ApiError> {
    let metadata = page.metadata();
    let (name, around) = match accept.shape {
        Shape::Object => (
            "items",
            json!({"kind": call.kind.list_kind(), "apiVersion": call.kind.api_version(), "metadata": metadata}),
        ),
        Shape::Metadata => {
            let kind = "PartialObjectMetadataList";
            ("items", json!({"kind": kind, "apiVersion": meta_version(accept), "metadata": metadata}))
        }
        Shape::Table => ("rows", table_of(&call, &[], metadata, accept, true)),
    };
    let Value::Object(around) = around else { return Err(ApiError::internal("a list is an object")) };
    let form = Form { format: accept.format, pretty: call.query.flag("pretty") };
    let layout = Layout::new(form, around, name, page.items.is_empty());
    let keeps = Keeps(kept(&page.items));
    let mut making = Making { call, accept, form, layout, items: page.items.into_iter(), begun: false, ended: false };
    let first = making.part(FIRST);
    let media = accept.format.media_type();
    if making.ended {
        return Ok(maybe_gzip(&making.call, raw(StatusCode::OK, media, first)));
    }
    let compressed = negotiate::accepts_gzip(&making.call.headers);
    let first = stream::once(async move { Ok(Frame::data(first.into())) });
    let parts = first.chain(stream::try_unfold(making, next));
    let mut response = Response::new(StreamBody::new(parts).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response.extensions_mut().insert(keeps);
    Ok(if compressed { gzip(response) } else { response })
}

/// Bytes that a list keeps while it is sent: a part of it, which ends with a whole item, as text that may be twice as
/// long as what is stored, and the objects that no cache has.
fn kept(items: &[Arc<Object>]) -> usize {
    let length = |object: &Arc<Object>| object.json_bytes().len();
    let own: usize = items.iter().filter(|object| Arc::strong_count(object) == 1).map(length).sum();
    FIRST + 2 * items.iter().map(length).max().unwrap_or(0) + own
}

/// A list being made.
struct Making {
    call: Call,
    accept: Accept,
    form: Form,
    layout: Layout,
    items: std::vec::IntoIter<Arc<Object>>,
    begun: bool,
    ended: bool,
}

async fn next(making: Making) -> Result<Option<(Frame<bytes::Bytes>, Making)>, BodyError> {
    if making.ended {
        return Ok(None);
    }
    let server = making.call.server.clone();
    let work = async move {
        let mut making = making;
        (making.part(SLICE), making)
    };
    let (part, making) = server.flow.apart(work).await.map_err(|error| BodyError(error.into()))?;
    Ok(Some((Frame::data(part.into()), making)))
}

impl Making {
    /// The next part, of so many bytes and the rest of an item.
    fn part(&mut self, length: usize) -> String {
        let mut out = std::mem::take(&mut self.layout.head);
        while out.len() < length {
            let Some(object) = self.items.next() else {
                self.ended = true;
                out.push_str(&self.layout.tail);
                break;
            };
            if std::mem::replace(&mut self.begun, true) {
                out.push_str(self.form.between());
            }
            self.form.write(&self.item(&object), &mut out);
        }
        out
    }

    fn item(&self, object: &Object) -> Value {
        let value = self.call.served(object.value());
        match self.accept.shape {
            Shape::Object => value,
            Shape::Metadata => metadata_of(&value, self.accept),
            Shape::Table => table_of(&self.call, &[value], Value::Null, self.accept, false)["rows"][0].take(),
        }
    }
}

/// How a list is written.
#[derive(Debug, Clone, Copy)]
struct Form {
    format: Format,
    pretty: bool,
}

impl Form {
    /// What stands between two items.
    fn between(self) -> &'static str {
        match self.format {
            Format::Json if self.pretty => ",\n    ",
            Format::Json => ",",
            Format::Yaml => "\n- ",
        }
    }

    /// How far the lines of an item are moved in, beyond its first.
    fn indent(self) -> &'static str {
        match self.format {
            Format::Json => "    ",
            Format::Yaml => "  ",
        }
    }

    /// Writes an item as it stands within a list.
    fn write(self, item: &Value, out: &mut String) {
        let text = text(self.format, item, self.pretty);
        let mut lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
        out.push_str(lines.next().unwrap_or_default());
        for line in lines {
            out.push('\n');
            if !line.is_empty() {
                out.push_str(self.indent());
                out.push_str(line);
            }
        }
    }
}

/// What stands before and after the items.
#[derive(Debug)]
struct Layout {
    head: String,
    tail: String,
}

impl Layout {
    /// The layout of a document that has its items under `name`.
    fn new(form: Form, mut around: Map<String, Value>, name: &str, empty: bool) -> Self {
        let write = |around: &Map<String, Value>| text(form.format, around, form.pretty);
        around.insert(name.to_owned(), json!([]));
        let without = write(&around);
        if empty {
            return Self { head: without, tail: String::new() };
        }
        // A word that stands nowhere else marks the place.
        let mark = (0_usize..).map(|n| format!("item{n}")).find(|mark| !without.contains(mark)).unwrap_or_default();
        around.insert(name.to_owned(), json!([mark]));
        let written = match form.format {
            Format::Json => format!("\"{mark}\""),
            Format::Yaml => mark,
        };
        let whole = write(&around);
        let (head, tail) = whole.split_once(&written).unwrap_or((&whole, ""));
        Self { head: head.to_owned(), tail: tail.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{expect, post, start};
    use http::Request;

    const FORMS: [Form; 3] = [
        Form { format: Format::Json, pretty: false },
        Form { format: Format::Json, pretty: true },
        Form { format: Format::Yaml, pretty: false },
    ];

    /// What is written item by item is what would be written at once.
    fn check(form: Form, items: &[Value]) {
        let around =
            json!({"apiVersion": "v1", "columnDefinitions": ["item0", "\"item1\""], "metadata": {"a": "item2"}});
        let Value::Object(around) = around else { unreachable!() };
        let mut whole = around.clone();
        whole.insert("items".into(), json!(items));
        let layout = Layout::new(form, around, "items", items.is_empty());
        let mut out = layout.head;
        for (n, item) in items.iter().enumerate() {
            if n > 0 {
                out.push_str(form.between());
            }
            form.write(item, &mut out);
        }
        out.push_str(&layout.tail);
        assert_eq!(out, text(form.format, &whole, form.pretty), "{form:?} {items:?}");
    }

    #[test]
    fn lists_are_written_as_if_at_once() {
        let items = [
            json!({"a": {"b": [1, {"c": null}], "d": []}, "metadata": {"name": "x"}}),
            json!({"end": "lines\n\nand more\n\n\n"}),
            json!({"text": "  moved in\n\n\tand back\n", "z": 1}),
            json!({"text": "\n\nfirst empty", "quoted": "a: b # c", "é": "\u{1}\u{2028}"}),
            json!({}),
            json!(null),
            json!([["a"], {"b": "c\nd"}]),
            json!({"k".repeat(200): {"deep": "x".repeat(300)}}),
        ];
        for form in FORMS {
            check(form, &[]);
            check(form, &items);
            items.iter().for_each(|item| check(form, std::slice::from_ref(item)));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_stays_what_it_is(texts in proptest::collection::vec("[ \n\t:#'\"a-c|>-]{0,12}", 0..4)) {
            let items: Vec<Value> = texts.iter().map(|text| json!({"a": {"b": text}, "c": [text]})).collect();
            FORMS.iter().for_each(|form| check(*form, &items));
        }
    }

    #[test]
    fn a_list_keeps_its_largest_item_and_what_it_alone_has() {
        let object = |length: usize| {
            let json = json!({"metadata": {"name": "x".repeat(length)}}).to_string();
            let kind = storage::EventKind::Added;
            Arc::new(Object::parse(json.as_bytes(), storage::Revision(1), kind, &Arc::from([])).unwrap())
        };
        let cached = [object(10), object(3000), object(20)];
        let [_, large, _] = cached.each_ref().map(|object| object.json_bytes().len());
        assert_eq!(kept(&[]), FIRST);
        let listed = cached.clone();
        assert_eq!(kept(&listed), FIRST + 2 * large);
        drop(cached);
        let read = vec![object(10), object(3000)];
        assert_eq!(kept(&read), FIRST + 2 * large + read.iter().map(|o| o.json_bytes().len()).sum::<usize>());
    }

    /// A list of any length is in memory in parts alone.
    #[tokio::test]
    async fn long_lists_are_made_as_they_are_read() {
        const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
        const MAPS: &str = "/api/v1/namespaces/default/configmaps";
        let (_server, client) = start().await;
        for n in 0..10 {
            let map = json!({"metadata": {"name": format!("m{n}")}, "data": {"k": "v\n".repeat(30_000)}});
            expect(post(&client, MAPS, &map).await, StatusCode::CREATED);
        }
        for (path, accept) in [
            (MAPS.to_owned(), "application/yaml"),
            (format!("{MAPS}?pretty=true"), "application/json"),
            (format!("{MAPS}?includeObject=Object"), TABLE),
        ] {
            let request = Request::get(&path).header("accept", accept).body(kube::client::Body::empty()).unwrap();
            let response = client.send(request).await.unwrap();
            let keeps = response.extensions().get().map(|Keeps(bytes)| *bytes);
            let mut body = response.into_body();
            let (mut whole, mut longest) = (Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                let part = frame.unwrap().into_data().unwrap();
                longest = longest.max(part.len());
                whole.extend_from_slice(&part);
            }
            assert!(whole.len() > 3 * longest, "{accept}: {longest} of {} at once", whole.len());
            assert!(
                keeps.is_some_and(|keeps| keeps >= longest && keeps < whole.len()),
                "{accept}: {keeps:?} {longest}"
            );
            let read: Value = serde_norway::from_slice(&whole).unwrap();
            let items = read["items"].as_array().or_else(|| read["rows"].as_array()).unwrap();
            assert_eq!(items.len(), 10, "{accept}");
        }
    }
}
