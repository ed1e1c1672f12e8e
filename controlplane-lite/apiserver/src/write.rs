//! Every write a client asks for, as one pipeline of stages in upstream's order
//! (`k8s.io/apiserver/pkg/endpoints/handlers`, `pkg/registry/generic/registry/store.go`, `pkg/registry/rest`):
//!
//! 1. **read** the stored object (none for a create);
//! 2. **make** the new one: what was sent, the patched, the scaled; nothing for a delete;
//! 3. **mutate**: admission's first phase, with defaults again where a plugin wrote as clients do;
//! 4. **preconditions**, and RBAC's check that nobody grants more than he has;
//! 5. **prepare** and **validate** by the kind's strategy; a new object gets its name, uid and time here;
//! 6. **grant** of addresses: those who judge next see them, and a refusal gives them back;
//! 7. **judge**: admission's second phase, which validates, quota last;
//! 8. **commit**, against just the state that was read.
//!
//! Who loses a race begins at 1, and all stages see the newest object; a generated name that is taken begins at 5. A
//! dry run passes all of them and stores nothing. Nothing is held while a stage waits but the grant, which goes back
//! when its try ends, however that is. Knows nothing of bodies and answers: those are the verbs'.

use serde_json::Value;

use crate::admission::{Memory, Operation, Options, Request};
use crate::allocate::Refused;
use crate::call::Call;
use crate::services::OpenGrant;
use crate::status::{self, ApiError};
use crate::warnings;
use scheme::access::str_at;
use scheme::{Kind, meta};

mod create;
mod delete;
mod update;

pub use create::{Told, create};
pub use delete::{delete, delete_admitted};
pub use update::{Carried, Scaling, update};

/// How a write presents itself to admission.
#[derive(Clone, Copy)]
struct Asked<'c> {
    call: &'c Call,
    operation: Operation,
    kind: &'c Kind,
    served: &'c Kind,
    body: &'c Kind,
    dry_run: bool,
    options: Options<'c>,
}

impl<'c> Asked<'c> {
    /// A write of the object itself.
    fn new(call: &'c Call, operation: Operation, dry_run: bool) -> Self {
        let kind: &Kind = call.ruling();
        let options = Options::Write(&call.query);
        Self { call, operation, kind, served: &call.kind, body: kind, dry_run, options }
    }

    fn request<'a>(&'a self, name: &'a str, old: Option<&'a Value>, memory: &'a Memory) -> Request<'a> {
        Request {
            operation: self.operation,
            kind: self.kind,
            served: self.served,
            body: self.body,
            subresource: &self.call.info.subresource,
            namespace: &self.call.info.namespace,
            name,
            user: &self.call.user,
            old,
            dry_run: self.dry_run,
            again: false,
            options: self.options,
            memory,
        }
    }

    async fn mutate(&self, name: &str, mut object: Option<&mut Value>, old: Option<&Value>) -> Result<(), ApiError> {
        // Each try begins with nothing.
        let (server, memory) = (&*self.call.server, Memory::default());
        server.admission.mutate(&self.request(name, old, &memory), object.as_deref_mut(), server).await?;
        if let Some(object) = object {
            dedup_owners(object, "contains duplicate entries after mutating admission happens");
        }
        Ok(())
    }

    async fn validate(&self, name: &str, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        let (server, memory) = (&*self.call.server, Memory::default());
        Ok(server.admission.validate(&self.request(name, old, &memory), object, server).await?)
    }
}

/// Names each owner of an object once, and warns of what it took out (`dedupOwnerReferencesAndAddWarning` in
/// `k8s.io/apiserver/pkg/endpoints/handlers/rest.go`).
pub fn dedup_owners(object: &mut Value, found: &str) {
    let taken = meta::dedup_owners(object);
    if !taken.is_empty() {
        warnings::add(format!(
            ".metadata.ownerReferences {found}; API server dedups owner references in 1.20+, and may reject such \
             requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            taken.join(", ")
        ));
    }
}

/// Both phases for something that is posted and not stored: the body of a create-only subresource of `kind`, or of a
/// resource that only takes such bodies.
///
/// # Errors
/// Admission's refusal.
pub async fn ask_admission(
    call: &Call,
    kind: &Kind,
    body: &Kind,
    object: &mut Value,
    dry_run: bool,
) -> Result<(), ApiError> {
    let asked = Asked::new(call, Operation::Create, dry_run);
    // What has a path of its own is nothing of the resource that it is about.
    let served = if std::ptr::eq(kind, asked.kind) { asked.served } else { kind };
    let asked = Asked { kind, served, body, ..asked };
    let name = match call.info.name.as_str() {
        "" => str_at(object, &["metadata", "name"]).to_owned(),
        name => name.to_owned(),
    };
    asked.mutate(&name, Some(object), None).await?;
    asked.validate(&name, Some(object), None).await
}

/// Both phases for a connection, with its options as the object.
///
/// # Errors
/// Admission's refusal.
pub async fn ask_to_connect(call: &Call, options: &mut Value) -> Result<(), ApiError> {
    let asked = Asked { options: Options::None, ..Asked::new(call, Operation::Connect, false) };
    asked.mutate(&call.info.name, Some(options), None).await?;
    asked.validate(&call.info.name, Some(options), None).await
}

/// Completes what holds addresses; other kinds pass untouched.
fn grant(call: &Call, name: &str, object: &mut Value, old: Option<&Value>) -> Result<OpenGrant, ApiError> {
    let filled = call.server.services.fill(&call.resource.kind, object, old);
    filled.map_err(|refused| match refused {
        Refused::Invalid(errors) => status::invalid(call.kind_subject(), name, &errors),
        Refused::Failed(why) => ApiError::internal(why),
    })
}
