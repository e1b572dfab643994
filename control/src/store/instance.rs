//! Instances and their addresses.
//!
//! Docker hands a stopped container's address to the very next one; ours rest: the one that was freed longest ago goes first,
//! and none goes to another environment before every edge has a table that does not offer it there.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use dormouse_link::{EnvironmentId, Generation, InstanceId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Write, parse, unsigned};
use crate::engine::Network;
use crate::model::{Instance, Millis};

/// The addresses that instances may have.
#[derive(Clone, Debug)]
pub struct Addresses {
    first: u32,
    count: u32,
    gateway: Ipv4Addr,
}

impl Addresses {
    /// Those of a network, less what the network needs for itself.
    pub fn of(network: &Network) -> Self {
        let size = 1_u32 << (32 - u32::from(network.prefix.clamp(8, 30)));
        Self { first: u32::from(network.subnet) + 1, count: size - 2, gateway: network.gateway }
    }

    /// Whether it is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.iter().any(|found| found == address)
    }

    fn iter(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        (self.first..self.first + self.count).map(Ipv4Addr::from).filter(|address| *address != self.gateway)
    }
}

/// From where an instance gets its address.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What there is.
    pub addresses: &'a Addresses,
    /// What every edge has applied.
    pub acked: Generation,
}

/// Who had an address last.
struct Past {
    environment: EnvironmentId,
    freed_at: Millis,
    freed_generation: Generation,
}

impl Store {
    /// The instances of an environment, oldest first.
    pub async fn instances(&self, id: &EnvironmentId) -> Result<Vec<Instance>, StoreError> {
        let rows = sqlx::query("SELECT * FROM instance WHERE environment_id = $1 ORDER BY created_at, id")
            .bind(id.as_str())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(instance).collect()
    }

    /// The ids of all instances.
    pub async fn instance_ids(&self) -> Result<Vec<InstanceId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM instance").fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok(InstanceId::new(row.try_get::<String, _>(0)?))).collect()
    }

    /// No instance of an environment was retired later than now.
    pub async fn retired_by(&self, id: &EnvironmentId, now: Millis) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        sqlx::query("UPDATE instance SET retired_at = $2 WHERE environment_id = $1 AND retired_at > $2")
            .bind(id.as_str())
            .bind(now)
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }

    /// An instance gets another address, because its engine's network is another one; returns it. The old one rests.
    pub async fn move_instance(
        &self,
        instance: &Instance,
        place: Place<'_>,
        now: Millis,
    ) -> Result<IpAddr, StoreError> {
        let mut write = self.begin().await?;
        let id = instance.environment.as_str();
        let mut environment = write.environment(id).await?.ok_or(StoreError::Gone("the environment"))?;
        let address = write.free_address(&instance.environment, place).await?;
        sqlx::query("UPDATE instance SET address = $2 WHERE id = $1")
            .bind(instance.id.as_str())
            .bind(address.to_string())
            .execute(&mut *write.tx)
            .await?;
        if environment.serving.as_ref() == Some(&instance.deployment_id) {
            environment.epoch.0 += 1;
        }
        write.save(&mut environment, now).await?;
        write.rest(instance, now).await?;
        write.commit().await?;
        Ok(address)
    }

    /// An instance is gone from its engine; its address rests.
    pub async fn remove_instance(&self, instance: &Instance, now: Millis) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        sqlx::query("DELETE FROM instance WHERE id = $1").bind(instance.id.as_str()).execute(&mut *write.tx).await?;
        write.rest(instance, now).await?;
        write.commit().await
    }
}

/// Never used ones first, then the one that rested longest.
fn choose(
    addresses: &Addresses,
    used: &HashSet<Ipv4Addr>,
    past: &HashMap<Ipv4Addr, Past>,
    environment: &EnvironmentId,
    acked: Generation,
) -> Option<IpAddr> {
    let free = addresses.iter().filter(|address| !used.contains(address));
    let may = free.filter(|address| {
        past.get(address).is_none_or(|past| past.environment == *environment || past.freed_generation <= acked)
    });
    may.min_by_key(|address| past.get(address).map_or(0, |past| past.freed_at)).map(IpAddr::V4)
}

impl Write<'_> {
    /// The address of an instance that has it no more rests, from this generation on.
    async fn rest(&mut self, instance: &Instance, now: Millis) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO address (address, environment_id, freed_at, freed_generation) \
             SELECT $1, $2, $3, CAST(value AS BIGINT) FROM meta WHERE name = 'generation' \
             ON CONFLICT (address) DO UPDATE SET environment_id = excluded.environment_id, freed_at = excluded.freed_at, \
             freed_generation = excluded.freed_generation",
        )
        .bind(instance.address.to_string())
        .bind(instance.environment.as_str())
        .bind(now)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// An address for an instance of `environment`.
    pub(super) async fn free_address(
        &mut self,
        environment: &EnvironmentId,
        Place { addresses, acked }: Place<'_>,
    ) -> Result<IpAddr, StoreError> {
        let mut used = HashSet::new();
        for row in sqlx::query("SELECT address FROM instance").fetch_all(&mut *self.tx).await? {
            used.insert(parse::<Ipv4Addr>("instance.address", row.try_get(0)?)?);
        }
        let mut past = HashMap::new();
        for row in sqlx::query("SELECT * FROM address").fetch_all(&mut *self.tx).await? {
            let address = parse::<Ipv4Addr>("address.address", row.try_get("address")?)?;
            let environment = EnvironmentId::new(row.try_get::<String, _>("environment_id")?);
            let freed_generation = Generation(unsigned(row.try_get("freed_generation")?));
            past.insert(address, Past { environment, freed_at: row.try_get("freed_at")?, freed_generation });
        }
        if let Some(address) = choose(addresses, &used, &past, environment, acked) {
            return Ok(address);
        }
        let all_used = addresses.iter().all(|address| used.contains(&address));
        Err(if all_used { StoreError::NoAddress(used.len()) } else { StoreError::AddressesRest })
    }

    pub(super) async fn insert_instance(&mut self, instance: &Instance, now: Millis) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO instance (id, environment_id, deployment_id, address, port, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(instance.id.as_str())
        .bind(instance.environment.as_str())
        .bind(&instance.deployment_id)
        .bind(instance.address.to_string())
        .bind(i64::from(instance.port))
        .bind(now)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// The instances of a deployment, oldest first.
    pub(super) async fn instances_of(&mut self, deployment: &str) -> Result<Vec<Instance>, StoreError> {
        let rows = sqlx::query("SELECT * FROM instance WHERE deployment_id = $1 ORDER BY created_at, id")
            .bind(deployment)
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(instance).collect()
    }
}

fn instance(row: &SqliteRow) -> Result<Instance, StoreError> {
    let generation = row.try_get::<Option<i64>, _>("retired_generation")?.map(|value| Generation(unsigned(value)));
    let port = row.try_get::<i64, _>("port")?;
    Ok(Instance {
        id: InstanceId::new(row.try_get::<String, _>("id")?),
        environment: EnvironmentId::new(row.try_get::<String, _>("environment_id")?),
        deployment_id: row.try_get("deployment_id")?,
        address: parse("instance.address", row.try_get("address")?)?,
        port: u16::try_from(port)
            .map_err(|_| StoreError::Corrupt { what: "instance.port", value: port.to_string() })?,
        retired: generation.zip(row.try_get::<Option<Millis>, _>("retired_at")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p71_an_address_rests_until_every_edge_has_a_table_without_it() {
        let network = Network {
            name: "n".into(),
            subnet: Ipv4Addr::new(10, 0, 0, 0),
            prefix: 29,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
        };
        let addresses = Addresses::of(&network);
        assert_eq!(addresses.iter().count(), 5, "eight, less the network's own, the broadcast and the gateway");
        let (mine, other) = (EnvironmentId::new("mine"), EnvironmentId::new("other"));
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        let used = [address(2), address(3), address(4)].into();
        let past = |environment: &EnvironmentId, freed_at, generation| Past {
            environment: environment.clone(),
            freed_at,
            freed_generation: Generation(generation),
        };
        let mut log = HashMap::from([(address(5), past(&other, 10, 7))]);
        let chosen = |log: &_, acked| choose(&addresses, &used, log, &mine, Generation(acked));
        assert_eq!(chosen(&log, 9), Some(address(6).into()), "a fresh one goes before a rested one");
        log.insert(address(6), past(&other, 20, 9));
        assert_eq!(chosen(&log, 9), Some(address(5).into()), "the one that rested longest");
        assert_eq!(chosen(&log, 6), None, "an edge may still offer both for their old environment");
        log.insert(address(6), past(&mine, 20, 9));
        assert_eq!(chosen(&log, 6), Some(address(6).into()), "its own environment may have it again at once");
    }
}
