//! Routes to the pods of other nodes.
//! Not the links of local pods: those are in [`crate::cni`].
