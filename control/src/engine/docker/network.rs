//! The networks of an installation: one for instances, one for builds. Each is a bridge without traffic between its
//! containers, with a subnet of our choice: only then does an instance keep its address over a restart of the engine, and
//! the engine's own few subnets are left to others.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::models::{Ipam, IpamConfig, Network as Found, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;

use super::{ANSWER_WITHIN, CHANGE_WITHIN, Docker, Fault, NETWORK, PART};
use crate::engine::{EngineError, Network};

/// The prefix of a network's subnet: 1 021 addresses for containers. A bridge degrades near 1 000.
const PREFIX: u8 = 22;

/// Subnets are taken from these private ranges (second octets of 10.0.0.0/8), which hardly anybody uses.
const RANGES: std::ops::RangeInclusive<u8> = 213..=216;

impl Docker {
    pub(super) fn network_name(&self) -> String {
        format!("dormouse-{}", self.installation)
    }

    /// The name of the network that the steps of builds run on.
    fn build_network_name(&self) -> String {
        format!("{}-build", self.network_name())
    }

    /// The id of the network for builds. Nothing is on it between builds, so anybody's `docker network prune` takes it away,
    /// and each build asks anew.
    pub(super) async fn build_network(&self) -> Result<String, EngineError> {
        self.ensure_network(&self.build_network_name()).await.map(|(id, _)| id)
    }

    /// The network of this name, with its id, as it is or a new one.
    pub(super) async fn ensure_network(&self, name: &str) -> Result<(String, Network), EngineError> {
        let _one = self.making_network.lock().await;
        if let Some(found) = self.find_networks().await?.into_iter().find(|found| found.name.as_deref() == Some(name)) {
            return found.id.clone().zip(parse(&found)).ok_or_else(|| EngineError::Refused {
                doing: format!("use network {name}"),
                says: "it has no IPv4 subnet with a gateway".to_owned(),
            });
        }
        let taken = self.routes();
        for network in candidates(name).filter(|network| !leads_into(&taken, network)) {
            let network = Network { name: name.to_owned(), ..network };
            let create = self.client();
            match self.ask(CHANGE_WITHIN, create.create_network(self.network_request(&network))).await {
                Ok(created) => return Ok((created.id, network)),
                Err(Fault::Said { says, .. }) if overlaps(&says) => continue,
                Err(fault) => return Err(self.error(format!("create network {name}"), fault)),
            }
        }
        Err(EngineError::NoSubnet(name.to_owned()))
    }

    /// Where this machine's packets go by now: another engine on it, or a private network, may have a subnet of ours, of
    /// which the engine does not know. Nothing is known of another machine's.
    fn routes(&self) -> Vec<(u32, u32)> {
        if self.address.starts_with("tcp") || self.address.starts_with("http") {
            return Vec::new();
        }
        parse_routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
    }

    fn network_request(&self, network: &Network) -> NetworkCreateRequest {
        let subnet = IpamConfig {
            subnet: Some(format!("{}/{}", network.subnet, network.prefix)),
            gateway: Some(network.gateway.to_string()),
            ..Default::default()
        };
        let options = HashMap::from([("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())]);
        NetworkCreateRequest {
            name: network.name.clone(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam { config: Some(vec![subnet]), ..Default::default() }),
            options: Some(options),
            labels: self.labels(&[(PART, NETWORK)]),
            ..Default::default()
        }
    }

    async fn find_networks(&self) -> Result<Vec<Found>, EngineError> {
        let options = ListNetworksOptions { filters: self.filters(&[]) };
        let found = self.ask(ANSWER_WITHIN, self.client().list_networks(Some(options))).await;
        found.map_err(|fault| self.error("list networks", fault))
    }

    /// Removes our networks, those there are.
    pub(super) async fn remove_networks(&self) -> Result<(), EngineError> {
        let ours = [self.network_name(), self.build_network_name()];
        for found in self.find_networks().await? {
            let (Some(id), Some(name)) = (found.id, found.name.filter(|name| ours.contains(name))) else { continue };
            match self.ask(CHANGE_WITHIN, self.client().remove_network(&id)).await {
                Ok(()) | Err(Fault::Said { status: 404, .. }) => {}
                Err(fault) => return Err(self.error(format!("remove network {name}"), fault)),
            }
        }
        Ok(())
    }
}

/// Whether a refusal means that somebody else has the subnet.
fn overlaps(says: &str) -> bool {
    let says = says.to_ascii_lowercase();
    says.contains("pool overlaps") || says.contains("overlapping ipv4") || says.contains("conflicts with network")
}

/// The destinations in Linux's table of routes, with their masks; the default route is none.
fn parse_routes(table: &str) -> Vec<(u32, u32)> {
    // In the machine's own order of bytes.
    let number = |word: &str| u32::from_str_radix(word, 16).ok().map(|number| u32::from_be_bytes(number.to_ne_bytes()));
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some((number(words.get(1)?)?, number(words.get(7)?)?))
    };
    table.lines().skip(1).filter_map(route).filter(|(_, mask)| *mask != 0).collect()
}

fn leads_into(routes: &[(u32, u32)], network: &Network) -> bool {
    let own = u32::MAX << (32 - u32::from(PREFIX));
    routes.iter().any(|(to, mask)| (to & mask & own) == (network.subnet.to_bits() & mask & own))
}

/// Every subnet that might be free. They begin elsewhere for each network, so that several that are made at once hardly meet,
/// and one that was lost finds its old subnet free.
fn candidates(name: &str) -> impl Iterator<Item = Network> {
    let subnets: Vec<Ipv4Addr> = RANGES
        .flat_map(|range| (0..=u8::MAX).step_by(4).map(move |third| Ipv4Addr::new(10, range, third, 0)))
        .collect();
    let first = name.bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let count = subnets.len();
    (0..count).map(move |step| {
        let subnet = subnets[(first % count + step) % count];
        Network { name: String::new(), subnet, prefix: PREFIX, gateway: Ipv4Addr::from_bits(subnet.to_bits() + 1) }
    })
}

fn parse(network: &Found) -> Option<Network> {
    let configs = network.ipam.as_ref()?.config.as_ref()?;
    configs.iter().find_map(|config| {
        let (subnet, prefix) = config.subnet.as_ref()?.split_once('/')?;
        Some(Network {
            name: network.name.clone()?,
            subnet: subnet.parse().ok()?,
            prefix: prefix.parse().ok()?,
            gateway: config.gateway.as_ref()?.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_subnet_that_this_machine_reaches_elsewhere_is_left_alone() {
        let hex = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |to, mask| format!("eth0\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", hex(to), hex(mask));
        let table = format!(
            "Iface\tDestination\n{}{}{}nonsense\n",
            line([0, 0, 0, 0], [0, 0, 0, 0]),
            line([10, 213, 68, 0], [255, 255, 252, 0]),
            line([10, 216, 0, 0], [255, 255, 0, 0]),
        );
        let routes = parse_routes(&table);
        assert_eq!(routes.len(), 2, "the default route leads everywhere");
        let taken: Vec<_> = candidates("a").filter(|network| leads_into(&routes, network)).collect();
        assert_eq!(taken.len(), 1 + 64);
        assert!(taken.iter().any(|network| network.subnet == Ipv4Addr::new(10, 213, 68, 0)));
    }

    #[test]
    fn every_candidate_is_tried_once_and_none_overlaps_another() {
        let all: Vec<Network> = candidates("some-installation").collect();
        let subnets: BTreeSet<u32> = all.iter().map(|network| network.subnet.to_bits()).collect();
        assert_eq!(subnets.len(), 256);
        assert!(subnets.iter().zip(subnets.iter().skip(1)).all(|(a, b)| b - a >= 1 << (32 - u32::from(PREFIX))));
        assert!(all.iter().all(|network| network.subnet.is_private() && network.gateway.is_private()));
        assert_ne!(candidates("a").next(), candidates("b").next());
    }
}
