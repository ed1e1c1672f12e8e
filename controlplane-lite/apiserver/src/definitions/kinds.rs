//! Pure: the kinds that a definition defines, as this server serves them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use super::rules::{Rules, Schemas};
use scheme::crd::{self, Described};
use scheme::kind::{Conversion, Shared};
use scheme::openapi::Dialect;
use scheme::selector::Selectable;
use scheme::{Kind, Schema, Text};
use storage::Object;

/// A definition as it is stored: what is not needed all the time is read from it when it is. It is the newest state
/// that says of the kinds what they were made of, so that its bytes are those that are cached anyway.
#[derive(Debug)]
pub struct Source(ArcSwap<Object>);

impl Source {
    /// A definition.
    pub fn new(object: Arc<Object>) -> Self {
        Self(ArcSwap::new(object))
    }

    /// Takes a newer state that says the same of the kinds.
    pub fn renew(&self, object: Arc<Object>) {
        self.0.store(object);
    }

    fn value(&self) -> Value {
        self.0.load().value()
    }
}

/// The kinds of all versions that are served or stored; none without names.
///
/// # Errors
/// What cannot be read of the schemas.
pub fn kinds(crd: &Value, source: &Arc<Source>) -> Result<Vec<Kind>, String> {
    let described = crd::kinds_of(crd);
    let Some(stored) = described.iter().find(|one| one.storage).map(|one| one.names.version.clone()) else {
        return Ok(Vec::new());
    };
    let read = source.clone();
    let schemas = Arc::new(Schemas::new(crd, Arc::new(move || read.value()))?);
    Ok(described.into_iter().map(|one| kind(one, &stored, &schemas, source)).collect())
}

fn kind(described: Described, stored: &Text, schemas: &Arc<Schemas>, source: &Arc<Source>) -> Kind {
    let version: Box<str> = (&*described.names.version).into();
    let rules = Rules {
        schemas: schemas.clone(),
        version: version.clone(),
        kind: (&*described.names.kind).into(),
        scale: described.scale.clone(),
    };
    let read = source.clone();
    let define = move |dialect: Dialect| crd::definition(&read.value(), &version, dialect);
    let schema = Schema::made(Text::Owned(described.definition), Arc::new(define));
    let mut kind = Kind::new(described.names, Arc::new(rules), schema);
    kind.custom = true;
    kind.list_kind = Some(described.list_kind);
    kind.namespaced = described.namespaced;
    kind.verbs = described.verbs;
    kind.terminating = described.terminating;
    kind.unserved = !described.served;
    kind.subresources = described.subresources;
    kind.scale = described.scale;
    kind.printer = Shared::Own(Arc::new(described.printer));
    kind.fields = Selectable::plain(described.fields);
    kind.deprecated = described.deprecated;
    kind.conversion = Some(conversion(&kind, stored, schemas));
    kind
}

/// Every version reads what is stored in any.
fn conversion(kind: &Kind, stored: &Text, schemas: &Arc<Schemas>) -> Conversion {
    let (group, version, stored_version) = (kind.group.clone(), kind.version.clone(), stored.clone());
    let (reads, writes, write_group) = (schemas.clone(), schemas.clone(), group.clone());
    Conversion {
        group: group.clone(),
        version: stored.clone(),
        kind: kind.kind.clone(),
        plural: kind.plural.clone(),
        to_storage: Shared::Own(Arc::new(move |object| writes.to_storage(object, &write_group, &stored_version))),
        from_storage: Shared::Own(Arc::new(move |object| reads.read_stored(object, &group, &version))),
        stored_field: str::to_owned,
    }
}
