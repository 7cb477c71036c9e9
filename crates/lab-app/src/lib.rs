//! Small programs that run in the lab: `shop`, a demo HTTP service with the metrics of a real one and
//! faults that can be switched, and `load`, a fixed-rate client that counts every answer by version
//! and status. Both are libraries first, so that tests and the end-to-end harness run them in-process.
//!
//! Nothing here knows Kubernetes, and nothing here may be pointed at, or be steered from, an address
//! outside the lab ([`net`]).

#![deny(missing_docs)]

pub mod flags;
pub mod load;
pub mod net;
pub mod random;
pub mod shop;
