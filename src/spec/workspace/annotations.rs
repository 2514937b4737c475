//! What of a document OCI has no words for, as the annotations that [`crate::spec::asked`] reads.

use std::collections::BTreeMap;

use super::Document;
use super::Network;
use super::Surroundings;
use crate::spec::asked::Expiry;
use crate::spec::asked::Isolation;
use crate::spec::asked::OverLimit;
use crate::spec::asked::PREFIX;

/// Annotations being written.
#[derive(Debug, Default)]
struct Written(BTreeMap<String, String>);

impl Written {
    fn set(&mut self, key: &str, value: &impl ToString) {
        self.0.insert(format!("{PREFIX}{key}"), value.to_string());
    }

    fn set_if(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(key, &value);
        }
    }
}

/// The annotations of a document: those for other tools, and ours.
pub(super) fn annotations(document: &Document, around: &Surroundings) -> BTreeMap<String, String> {
    let mut to = Written(document.annotations.clone());
    to.set("billed", &true);
    let isolation = around.isolation.or(document.isolation);
    to.set_if("isolation", isolation.map(word_for));
    guarantees(document, &mut to);
    if document.machine.as_ref().is_some_and(|one| one.hugepages) {
        to.set("machine.hugepages", &true);
    }
    network(document.network.as_ref(), &mut to);
    if let Some(lease) = &document.lease {
        to.set("lease.ttl", &lease.ttl);
        let on_expiry = match lease.on_expiry {
            Expiry::Stop => "stop",
            Expiry::Pause => "pause",
            Expiry::Trash => "trash",
        };
        to.set("lease.on_expiry", &on_expiry);
    }
    if let Some(layer) = &around.layer {
        to.set("rootfs.upper", &layer.upper);
        to.set("rootfs.work", &layer.work);
        if layer.volatile {
            to.set("rootfs.volatile", &true);
        }
    }
    to.0
}

fn word_for(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Container => "container",
        Isolation::MicroVm => "microvm",
    }
}

fn guarantees(document: &Document, to: &mut Written) {
    to.set_if("cpu.reserve", document.cpu.reserve);
    to.set_if("cpu.share", document.cpu.share);
    to.set_if("memory.reserve", document.memory.reserve);
    to.set_if("io.read.reserve", document.io.read.reserve);
    to.set_if("io.write.reserve", document.io.write.reserve);
    if document.memory.on_over_limit == OverLimit::Reset {
        to.set("memory.on_over_limit", &"reset");
    }
}

fn network(network: Option<&Network>, to: &mut Written) {
    let Some(network) = network else {
        return to.set("network", &"none");
    };
    // A namespace that somebody else has made is joined, and left as it is.
    if network.bridge.starts_with('/') {
        return;
    }
    to.set("network", &network.bridge);
    if !network.is_bridge() {
        return;
    }
    to.set("network.address", &network.address);
    if !network.publish.is_empty() {
        let ports: Vec<String> = network.publish.iter().map(ToString::to_string).collect();
        to.set("network.publish", &ports.join(","));
    }
    to.set_if("network.mtu", network.mtu);
    for (direction, rate) in [("in", &network.inward), ("out", &network.outward)] {
        to.set_if(&format!("network.{direction}.reserve"), rate.reserve);
        to.set_if(&format!("network.{direction}.limit"), rate.limit);
    }
}
