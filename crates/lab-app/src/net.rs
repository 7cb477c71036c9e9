//! Decides which addresses belong to the lab. It never resolves a name: a name could mean anything.

use std::net::{IpAddr, Ipv4Addr};

/// The lab's address ranges: loopback, pods and nodes, Services. Each is (network, prefix length).
pub const LAB_RANGES: [(Ipv4Addr, u32); 3] =
    [(Ipv4Addr::new(127, 0, 0, 0), 8), (Ipv4Addr::new(10, 244, 0, 0), 16), (Ipv4Addr::new(10, 96, 0, 0), 12)];

/// Whether `address` is loopback or lies in the lab's pod or Service range.
///
/// IPv6 is never in the lab, save an IPv4 address in its IPv6 spelling.
#[must_use]
pub fn is_lab_address(address: IpAddr) -> bool {
    let IpAddr::V4(v4) = address.to_canonical() else {
        return false;
    };
    LAB_RANGES.iter().any(|(network, prefix)| {
        let mask = u32::MAX.checked_shl(32_u32.saturating_sub(*prefix)).unwrap_or(0);
        v4.to_bits() & mask == network.to_bits()
    })
}

/// The ranges as people write them, for messages.
#[must_use]
pub fn lab_ranges_text() -> String {
    let ranges: Vec<String> = LAB_RANGES.iter().map(|(network, prefix)| format!("{network}/{prefix}")).collect();
    ranges.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_loopback_pod_and_service_addresses_are_lab_addresses() {
        for inside in [
            "127.0.0.1",
            "127.255.255.255",
            "10.244.0.1",
            "10.244.255.255",
            "10.96.0.1",
            "10.111.255.255",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_lab_address(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "128.0.0.1",
            "126.255.255.255",
            "10.243.255.255",
            "10.245.0.0",
            "10.95.255.255",
            "10.112.0.0",
            "192.168.0.1",
            "8.8.8.8",
            "0.0.0.0",
            "169.254.169.254",
            "::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_lab_address(outside.parse().unwrap()), "{outside}");
        }
    }
}
