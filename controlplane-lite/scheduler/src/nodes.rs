//! Node data by column: what filters and scores read, one vector per property,
//! so that a pass over five thousand nodes touches little memory. Pure.

mod compact;

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Node, Taint};

use super::pod::{HostPort, PodInfo};
use super::resources::Resources;

/// Position of a node in the columns; stable while the node exists.
pub type Slot = usize;
/// An interned text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(u32);
/// A distinct list of taints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaintSet(pub usize);

/// Index of the column of CPU.
pub const CPU: usize = 0;
/// Index of the column of memory.
pub const MEMORY: usize = 1;
/// Index of the column of ephemeral storage.
pub const EPHEMERAL: usize = 2;
/// Index of the column of pods.
pub const PODS: usize = 3;

/// One resource of every node.
#[derive(Debug, Default)]
pub struct Column {
    /// Upstream's name.
    pub name: String,
    /// What nodes offer.
    pub allocatable: Vec<i64>,
    /// What pods on them ask for.
    pub requested: Vec<i64>,
}

/// Texts by number: those of nodes. What nodes that left made it remember is given back by `compact`.
#[derive(Debug, Default)]
struct Interner {
    ids: HashMap<String, Symbol>,
    texts: Vec<String>,
}

impl Interner {
    fn intern(&mut self, text: &str) -> Symbol {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = Symbol(u32::try_from(self.texts.len()).expect("fewer than four billion node labels"));
        self.ids.insert(text.to_owned(), id);
        self.texts.push(text.to_owned());
        id
    }
}

/// Every node.
#[derive(Debug)]
pub struct Nodes {
    names: Vec<String>,
    by_name: HashMap<String, Slot>,
    free: Vec<Slot>,
    order: Vec<Slot>,
    /// Resources: the four fixed ones, then extended ones as they are met.
    pub columns: Vec<Column>,
    column_by_name: HashMap<String, usize>,
    /// CPU of pods with defaults, in millicores.
    pub nonzero_cpu: Vec<i64>,
    /// Memory of pods with defaults, in bytes.
    pub nonzero_memory: Vec<i64>,
    unschedulable: Vec<bool>,
    taint_set: Vec<TaintSet>,
    taint_sets: Vec<Vec<Taint>>,
    labels: Vec<Vec<(Symbol, Symbol)>>,
    ports: Vec<Vec<HostPort>>,
    images: Vec<Vec<(Symbol, i64)>>,
    image_nodes: HashMap<Symbol, u32>,
    texts: Interner,
    /// Texts, taint sets and columns that were in use when the rest was last forgotten.
    in_use: usize,
    /// Nodes that left since then.
    removed: usize,
}

impl Default for Nodes {
    fn default() -> Self {
        let mut nodes = Self {
            names: Vec::new(),
            by_name: HashMap::new(),
            free: Vec::new(),
            order: Vec::new(),
            columns: Vec::new(),
            column_by_name: HashMap::new(),
            nonzero_cpu: Vec::new(),
            nonzero_memory: Vec::new(),
            unschedulable: Vec::new(),
            taint_set: Vec::new(),
            taint_sets: vec![Vec::new()],
            labels: Vec::new(),
            ports: Vec::new(),
            images: Vec::new(),
            image_nodes: HashMap::new(),
            texts: Interner::default(),
            in_use: 0,
            removed: 0,
        };
        for name in ["cpu", "memory", "ephemeral-storage", "pods"] {
            nodes.column(name);
        }
        nodes
    }
}

impl Nodes {
    /// Slots of live nodes in the order they are tried.
    pub fn order(&self) -> &[Slot] {
        &self.order
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The node's name.
    pub fn name(&self, slot: Slot) -> &str {
        &self.names[slot]
    }

    /// The slot of a live node.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    /// Whether the node is cordoned.
    pub fn unschedulable(&self, slot: Slot) -> bool {
        self.unschedulable[slot]
    }

    /// Which list of taints the node has.
    pub fn taint_set(&self, slot: Slot) -> TaintSet {
        self.taint_set[slot]
    }

    /// Every list of taints nodes have had.
    pub fn taint_sets(&self) -> &[Vec<Taint>] {
        &self.taint_sets
    }

    /// Host ports in use.
    pub fn ports(&self, slot: Slot) -> &[HostPort] {
        &self.ports[slot]
    }

    /// The symbol of a text that some node has (or had) as key, value or image.
    pub fn symbol(&self, text: &str) -> Option<Symbol> {
        self.texts.ids.get(text).copied()
    }

    /// The text of a symbol.
    pub fn text(&self, symbol: Symbol) -> &str {
        &self.texts.texts[symbol.0 as usize]
    }

    /// The value of a label.
    pub fn label(&self, slot: Slot, key: Symbol) -> Option<Symbol> {
        let labels = &self.labels[slot];
        labels.binary_search_by_key(&key, |(k, _)| *k).ok().map(|i| labels[i].1)
    }

    /// The size of an image if the node has it.
    pub fn image_size(&self, slot: Slot, image: Symbol) -> Option<i64> {
        self.images[slot].iter().find(|(i, _)| *i == image).map(|(_, size)| *size)
    }

    /// How many nodes have an image.
    pub fn image_spread(&self, image: Symbol) -> u32 {
        self.image_nodes.get(&image).copied().unwrap_or(0)
    }

    /// The column of a resource, if some node offers or pod takes it.
    pub fn find_column(&self, name: &str) -> Option<usize> {
        self.column_by_name.get(name).copied()
    }

    fn column(&mut self, name: &str) -> usize {
        if let Some(at) = self.column_by_name.get(name) {
            return *at;
        }
        let n = self.names.len();
        self.columns.push(Column { name: name.to_owned(), allocatable: vec![0; n], requested: vec![0; n] });
        self.column_by_name.insert(name.to_owned(), self.columns.len() - 1);
        self.columns.len() - 1
    }

    /// Adds a node or takes over its new state. True when it is new.
    pub fn upsert(&mut self, node: &Node) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let (slot, new) = match self.slot(&name) {
            Some(slot) => (slot, false),
            None => (self.new_slot(name), true),
        };
        let offer = Resources::of(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
        for column in &mut self.columns {
            column.allocatable[slot] = 0;
        }
        self.columns[CPU].allocatable[slot] = offer.cpu;
        self.columns[MEMORY].allocatable[slot] = offer.memory;
        self.columns[EPHEMERAL].allocatable[slot] = offer.ephemeral;
        self.columns[PODS].allocatable[slot] = offer.pods;
        for (name, amount) in &offer.scalars {
            let at = self.column(name);
            self.columns[at].allocatable[slot] = *amount;
        }
        let spec = node.spec.as_ref();
        self.unschedulable[slot] = spec.is_some_and(|s| s.unschedulable == Some(true));
        self.taint_set[slot] = self.intern_taints(spec.and_then(|s| s.taints.as_deref()).unwrap_or_default());
        self.labels[slot] = self.intern_labels(node.metadata.labels.as_ref());
        self.set_images(slot, node);
        self.compact_some();
        new
    }

    fn new_slot(&mut self, name: String) -> Slot {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.names[slot].clone_from(&name);
                slot
            }
            None => {
                self.names.push(name.clone());
                for column in &mut self.columns {
                    column.allocatable.push(0);
                    column.requested.push(0);
                }
                self.nonzero_cpu.push(0);
                self.nonzero_memory.push(0);
                self.unschedulable.push(false);
                self.taint_set.push(TaintSet(0));
                self.labels.push(Vec::new());
                self.ports.push(Vec::new());
                self.images.push(Vec::new());
                self.names.len() - 1
            }
        };
        self.by_name.insert(name, slot);
        self.order.push(slot);
        slot
    }

    /// Forgets a node. Its pods' amounts go with it.
    pub fn remove(&mut self, name: &str) -> Option<Slot> {
        let slot = self.by_name.remove(name)?;
        self.order.retain(|s| *s != slot);
        for column in &mut self.columns {
            column.allocatable[slot] = 0;
            column.requested[slot] = 0;
        }
        self.nonzero_cpu[slot] = 0;
        self.nonzero_memory[slot] = 0;
        self.labels[slot] = Vec::new();
        self.ports[slot] = Vec::new();
        self.forget_images(slot);
        self.free.push(slot);
        self.removed += 1;
        if slot + 1 == self.names.len() {
            self.drop_last_slots();
        }
        self.compact_some();
        Some(slot)
    }

    /// Counts a pod on a node.
    pub fn charge(&mut self, slot: Slot, pod: &PodInfo) {
        self.account(slot, pod, 1);
        self.ports[slot].extend(pod.host_ports.iter().cloned());
        self.compact_some();
    }

    /// Takes a pod off a node.
    pub fn refund(&mut self, slot: Slot, pod: &PodInfo) {
        self.account(slot, pod, -1);
        for port in &pod.host_ports {
            if let Some(at) = self.ports[slot].iter().position(|p| p == port) {
                self.ports[slot].swap_remove(at);
            }
        }
    }

    fn account(&mut self, slot: Slot, pod: &PodInfo, sign: i64) {
        let exact = &pod.requests.exact;
        self.columns[CPU].requested[slot] += sign * exact.cpu;
        self.columns[MEMORY].requested[slot] += sign * exact.memory;
        self.columns[EPHEMERAL].requested[slot] += sign * exact.ephemeral;
        self.columns[PODS].requested[slot] += sign;
        for (name, amount) in &exact.scalars {
            let at = self.column(name);
            self.columns[at].requested[slot] += sign * amount;
        }
        self.nonzero_cpu[slot] += sign * pod.requests.nonzero_cpu;
        self.nonzero_memory[slot] += sign * pod.requests.nonzero_memory;
    }

    fn intern_taints(&mut self, taints: &[Taint]) -> TaintSet {
        let bare: Vec<Taint> = taints.iter().map(|t| Taint { time_added: None, ..t.clone() }).collect();
        if let Some(at) = self.taint_sets.iter().position(|s| *s == bare) {
            return TaintSet(at);
        }
        self.taint_sets.push(bare);
        TaintSet(self.taint_sets.len() - 1)
    }

    fn intern_labels(&mut self, labels: Option<&BTreeMap<String, String>>) -> Vec<(Symbol, Symbol)> {
        let texts = &mut self.texts;
        let mut out: Vec<_> = labels.into_iter().flatten().map(|(k, v)| (texts.intern(k), texts.intern(v))).collect();
        out.sort_unstable();
        out
    }

    fn set_images(&mut self, slot: Slot, node: &Node) {
        self.forget_images(slot);
        let images = node.status.as_ref().and_then(|s| s.images.as_ref());
        for image in images.into_iter().flatten() {
            for name in image.names.iter().flatten() {
                let symbol = self.texts.intern(name);
                self.images[slot].push((symbol, image.size_bytes.unwrap_or(0)));
                *self.image_nodes.entry(symbol).or_default() += 1;
            }
        }
    }

    fn forget_images(&mut self, slot: Slot) {
        for (symbol, _) in std::mem::take(&mut self.images[slot]) {
            if let Some(n) = self.image_nodes.get_mut(&symbol) {
                *n = n.saturating_sub(1);
            }
        }
    }
}
