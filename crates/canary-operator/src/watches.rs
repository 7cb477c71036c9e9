//! Watches that only wake. What a watch says is never a fact to decide on: each tick reads what it
//! needs live. Nothing of an object is kept but its key, whose it is and a fingerprint.

/// Stands for the state of our admission policies and their bindings: it changes when one of them
/// is created, changed or deleted, and then the hold must be proved again. Empty until known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyGeneration(pub String);
