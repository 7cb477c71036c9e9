//! What must hold at every write of the operator, whatever went wrong before. It is judged from the objects, the traffic
//! and the answers that the operator had, not from what the operator says of itself.

use canary_core::object;
use serde_json::Value;

use crate::api::Api;
use crate::cluster::Cluster;
use crate::request::Call;

/// What has to be remembered to judge a write.
#[derive(Debug, Default)]
pub struct Promises {
    /// What was broken, in words.
    pub broken: Vec<String>,
    /// Steps and stages that the status went through, by release.
    pub trail: Vec<(String, canary_api::Step, i32)>,
}

impl Promises {
    /// Something of the cluster's own changed.
    pub fn cluster_moved(&mut self, _api: &Api, _cluster: &Cluster) {}

    /// A tick ended, and did not fail.
    pub fn ticked(&mut self, _api: &Api, _cluster: &Cluster) {}

    /// The operator wrote.
    pub(crate) fn written(
        &mut self,
        _api: &Api,
        _cluster: &Cluster,
        _call: &Call,
        _before: Option<&Value>,
        _after: Option<&Value>,
        _failed: &[(&'static str, String)],
    ) {
        let _ = object::name;
    }
}
