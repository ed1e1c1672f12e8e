//! Claims stay while pods use them, and volumes while claims are bound to them: the finalizers that the API server sets
//! go when nobody uses the object any more (pkg/controller/volume/{pvcprotection,pvprotection}).

mod plan;
mod sync;

pub(super) use sync::{start_claims, start_volumes};
