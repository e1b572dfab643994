//! An endpoint of a table file: an address, or an object where more is to be said of it.

use std::net::SocketAddr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::table::WEIGHT;
use crate::{Endpoint, InstanceId, Label};

/// Where an instance listens; its address is its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEndpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Its share, beside others.
    pub weight: u16,
    /// What it belongs to.
    pub group: Option<Label>,
}

impl FileEndpoint {
    pub(super) fn endpoint(&self) -> Endpoint {
        let named = Endpoint::new(InstanceId::new(self.address.to_string()), self.address);
        Endpoint { weight: self.weight, group: self.group.clone(), ..named }
    }
}

impl From<SocketAddr> for FileEndpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, weight: WEIGHT, group: None }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    address: SocketAddr,
    #[serde(default = "weight")]
    weight: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<Label>,
}

fn weight() -> u16 {
    WEIGHT
}

impl Serialize for FileEndpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if *self == Self::from(self.address) {
            return self.address.serialize(to);
        }
        Long { address: self.address, weight: self.weight, group: self.group.clone() }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for FileEndpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = FileEndpoint;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an address with a port, or an object with \"address\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<FileEndpoint, E> {
                text.parse().map(|address: SocketAddr| address.into()).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FileEndpoint, A::Error> {
                let Long { address, weight, group } = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(FileEndpoint { address, weight, group })
            }
        }
        from.deserialize_any(Either)
    }
}
