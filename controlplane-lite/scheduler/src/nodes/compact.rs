//! Gives back what nodes and pods that left made the columns remember.

use std::collections::HashMap;

use super::{Nodes, PODS, Slot, Symbol, TaintSet};

/// What may be remembered beside twice of what is in use.
const SLACK: usize = 1024;

impl Nodes {
    /// Forgets what nothing uses any more, once that may be more than half. To be called after a change.
    pub(super) fn compact_some(&mut self) {
        let remembered = self.texts.texts.len() + self.taint_sets.len() + self.columns.len();
        if remembered > 2 * self.in_use + SLACK || self.removed > self.order.len() + SLACK / 16 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        self.drop_texts();
        self.drop_taints();
        self.drop_columns();
        self.in_use = self.texts.texts.len() + self.taint_sets.len() + self.columns.len();
        self.removed = 0;
    }

    /// Slots are stable while their node exists, so only those behind the last node can go.
    pub(super) fn drop_last_slots(&mut self) {
        let len = self.order.iter().max().map_or(0, |last| last + 1);
        self.free.retain(|slot| *slot < len);
        fn cut<T>(column: &mut Vec<T>, len: usize) {
            column.truncate(len);
            if column.capacity() > 2 * len + SLACK / 16 {
                column.shrink_to_fit();
            }
        }
        for column in &mut self.columns {
            cut(&mut column.allocatable, len);
            cut(&mut column.requested, len);
        }
        cut(&mut self.names, len);
        cut(&mut self.nonzero_cpu, len);
        cut(&mut self.nonzero_memory, len);
        cut(&mut self.unschedulable, len);
        cut(&mut self.taint_set, len);
        cut(&mut self.labels, len);
        cut(&mut self.ports, len);
        cut(&mut self.images, len);
    }

    fn drop_texts(&mut self) {
        let old = std::mem::take(&mut self.texts);
        let texts = &mut self.texts;
        let mut moved = |symbol: &mut Symbol| *symbol = texts.intern(&old.texts[symbol.0 as usize]);
        for labels in &mut self.labels {
            for (key, value) in labels.iter_mut() {
                moved(key);
                moved(value);
            }
            // Looked up by key.
            labels.sort_unstable();
        }
        for (image, _) in self.images.iter_mut().flatten() {
            moved(image);
        }
        self.image_nodes = HashMap::new();
        for (image, _) in self.images.iter().flatten() {
            *self.image_nodes.entry(*image).or_default() += 1;
        }
    }

    fn drop_taints(&mut self) {
        let old = std::mem::replace(&mut self.taint_sets, vec![Vec::new()]);
        // A free slot names no set.
        let of_slots = std::mem::replace(&mut self.taint_set, vec![TaintSet(0); self.names.len()]);
        let live: Vec<Slot> = self.order.clone();
        for slot in live {
            self.taint_set[slot] = self.intern_taints(&old[of_slots[slot].0]);
        }
    }

    /// Columns of resources that no node offers and no pod asks for.
    fn drop_columns(&mut self) {
        let mut at = 0;
        self.columns.retain(|column| {
            at += 1;
            let used = column.allocatable.iter().chain(&column.requested).any(|amount| *amount != 0);
            used || at <= PODS + 1
        });
        self.column_by_name = self.columns.iter().enumerate().map(|(at, column)| (column.name.clone(), at)).collect();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pod::PodInfo;
    use k8s_openapi::api::core::v1::Node;
    use serde_json::{from_value, json};

    /// Every tenth offers something that no other does.
    fn node(n: usize) -> Node {
        let own = format!("example.com/r{}", n / 10 * 10);
        from_value(json!({
            "metadata": {"name": format!("n{n}"), "labels": {"kubernetes.io/hostname": format!("n{n}"), "zone": "z"}},
            "spec": {"taints": [{"key": format!("t{n}"), "effect": "NoSchedule"}]},
            "status": {
                "allocatable": {"cpu": "4", "pods": "10", own: if n.is_multiple_of(10) { "1" } else { "0" }},
                "images": [{"names": [format!("image{n}")], "sizeBytes": 9}, {"names": ["shared"], "sizeBytes": 7}],
            },
        }))
        .unwrap()
    }

    fn remembered(nodes: &Nodes) -> (usize, usize, usize, usize) {
        (nodes.texts.texts.len(), nodes.taint_sets.len(), nodes.columns.len(), nodes.names.len())
    }

    #[test]
    fn nodes_that_come_and_go_leave_nothing() {
        let mut nodes = Nodes::default();
        nodes.upsert(&node(0));
        for n in 1..10_000 {
            nodes.upsert(&node(n));
            nodes.remove(&format!("n{n}"));
        }
        let (texts, taints, columns, slots) = remembered(&nodes);
        assert!(texts + taints + columns < 3 * SLACK && slots == 1, "{texts} {taints} {columns} {slots}");
        for n in 1..4_000 {
            nodes.upsert(&node(n));
        }
        for n in 1..4_000 {
            nodes.remove(&format!("n{n}"));
        }
        let (texts, taints, columns, slots) = remembered(&nodes);
        assert!(texts + taints + columns < SLACK && slots == 1, "{texts} {taints} {columns} {slots}");
    }

    #[test]
    fn pods_with_resources_of_their_own_leave_nothing() {
        let mut nodes = Nodes::default();
        nodes.upsert(&node(0));
        for n in 0..5_000 {
            let requests = json!({"cpu": "1", format!("example.com/p{n}"): "1"});
            let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
            let pod = PodInfo::new(from_value(pod).unwrap());
            nodes.charge(0, &pod);
            nodes.refund(0, &pod);
        }
        assert!(nodes.columns.len() < 2 * SLACK, "{}", nodes.columns.len());
        assert_eq!(nodes.columns[super::super::CPU].requested[0], 0);
    }

    #[test]
    fn what_stays_is_found_as_before() {
        let mut nodes = Nodes::default();
        for n in 0..50 {
            nodes.upsert(&node(n));
        }
        for n in (0..50).filter(|n| n % 3 != 0) {
            nodes.remove(&format!("n{n}"));
        }
        nodes.compact();
        for n in (0..50).step_by(3) {
            let slot = nodes.slot(&format!("n{n}")).unwrap();
            assert_eq!(nodes.name(slot), format!("n{n}"));
            let symbol = |text: &str| nodes.symbol(text).unwrap();
            assert_eq!(nodes.label(slot, symbol("kubernetes.io/hostname")), nodes.symbol(&format!("n{n}")));
            assert_eq!(nodes.label(slot, symbol("zone")), nodes.symbol("z"));
            assert_eq!(nodes.image_size(slot, symbol(&format!("image{n}"))), Some(9));
            assert_eq!(nodes.taint_sets()[nodes.taint_set(slot).0][0].key, format!("t{n}"));
            let column = nodes.find_column(&format!("example.com/r{n}"));
            assert_eq!(column.map(|at| nodes.columns[at].allocatable[slot]), (n % 10 == 0).then_some(1));
        }
        assert_eq!(nodes.image_spread(nodes.symbol("shared").unwrap()), 17);
        assert!(nodes.symbol("n1").is_none() && nodes.find_column("example.com/r10").is_none());
    }
}
