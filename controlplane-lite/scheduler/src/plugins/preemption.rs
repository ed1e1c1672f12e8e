//! DefaultPreemption, as far as its message: evicting pods of lower priority is
//! not done yet, and the plugin says that no victims were found. Pure.

use crate::framework::{PostFilterPlugin, Rejected};
use crate::pod::PodInfo;

/// The plugin.
#[derive(Debug)]
pub struct DefaultPreemption;

impl PostFilterPlugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }

    fn post_filter(&self, _pod: &PodInfo, rejected: &Rejected) -> Option<String> {
        if rejected.nodes == 0 {
            return None;
        }
        let hopeless = rejected.unresolvable.min(rejected.nodes);
        let mut parts = Vec::new();
        for (count, text) in [
            (rejected.nodes - hopeless, "No preemption victims found for incoming pod"),
            (hopeless, "Preemption is not helpful for scheduling"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {text}"));
            }
        }
        parts.sort();
        Some(format!("preemption: 0/{} nodes are available: {}.", rejected.nodes, parts.join(", ")))
    }
}
