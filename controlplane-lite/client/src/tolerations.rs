//! Which tolerations tolerate which taints. Pure.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether one of the tolerations tolerates the taint.
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

/// Whether a toleration tolerates a taint, as upstream's `ToleratesTaint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = text(&toleration.key);
    if !key.is_empty() && key != taint.key {
        return false;
    }
    let (want, have) = (text(&toleration.value), text(&taint.value));
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => want == have && !key.is_empty(),
        "Exists" => true,
        "Lt" => matches!((have.parse::<i64>(), want.parse::<i64>()), (Ok(h), Ok(w)) if h < w),
        "Gt" => matches!((have.parse::<i64>(), want.parse::<i64>()), (Ok(h), Ok(w)) if h > w),
        _ => false,
    }
}
