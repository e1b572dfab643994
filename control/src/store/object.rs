//! The table that edges serve: one row an object, each with the generation that published it.
//!
//! Generations are allocated in the writing transaction; there is one writer, so they show in their order.

use dormouse_link::{
    Base, Body, Certificate, Endpoint, Environment as Cell, Generation, Host, Object, ObjectId, OrganisationId, Route,
    State, Term, Update,
};
use sqlx::Row;
use std::time::Duration;

use super::{Store, StoreError, Write, big, from_json, parse, to_json, unsigned};
use crate::model::{Environment, EnvironmentState, Millis};
use crate::policy;

impl Store {
    /// What changed after `base`, as an update; everything there is where `base` is `Snapshot`.
    pub async fn objects_since(&self, base: Base) -> Result<Update, StoreError> {
        let since = if let Base::Since(generation) = base { generation } else { Generation(0) };
        // One statement, so that the newest generation and the objects are of one moment.
        let rows = sqlx::query(
            "SELECT meta.value AS newest, object.* FROM meta LEFT JOIN object ON object.generation > $1 \
             WHERE meta.name = 'generation' ORDER BY object.generation",
        )
        .bind(big(since.0))
        .fetch_all(&self.read)
        .await?;
        let mut update = Update { term: Term(1), generation: since, base, put: Vec::new(), remove: Vec::new() };
        for row in rows {
            update.generation = Generation(parse("generation", row.try_get("newest")?)?);
            let Some(kind) = row.try_get::<Option<&str>, _>("kind")? else { continue };
            match row.try_get::<Option<&str>, _>("body")? {
                Some(body) => update.put.push(Object {
                    version: Generation(unsigned(row.try_get("generation")?)),
                    organisation: OrganisationId::new(row.try_get::<String, _>("organisation_id")?),
                    body: from_json("object.body", body)?,
                }),
                None if base != Base::Snapshot => update.remove.push(object_id(kind, row.try_get("id")?)?),
                None => {}
            }
        }
        Ok(update)
    }
}

impl Write<'_> {
    async fn next_generation(&mut self) -> Result<Generation, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'generation'").fetch_one(&mut *self.tx).await?;
        let next: u64 = parse::<u64>("generation", row.try_get(0)?)? + 1;
        sqlx::query("UPDATE meta SET value = $1 WHERE name = 'generation'")
            .bind(next.to_string())
            .execute(&mut *self.tx)
            .await?;
        Ok(Generation(next))
    }

    pub(super) async fn put(
        &mut self,
        organisation: &OrganisationId,
        body: Option<&Body>,
        id: &ObjectId,
    ) -> Result<Generation, StoreError> {
        let generation = self.next_generation().await?;
        let (kind, name) = object_name(id);
        sqlx::query(
            "INSERT INTO object (kind, id, organisation_id, generation, body) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (kind, id) DO UPDATE SET organisation_id = excluded.organisation_id, \
             generation = excluded.generation, body = excluded.body",
        )
        .bind(kind)
        .bind(name)
        .bind(organisation.as_str())
        .bind(big(generation.0))
        .bind(body.map(to_json))
        .execute(&mut *self.tx)
        .await?;
        Ok(generation)
    }

    /// Publishes a host of an environment: its route and what it proves itself with.
    pub(super) async fn publish_host(
        &mut self,
        environment: &Environment,
        certificate: Certificate,
    ) -> Result<(), StoreError> {
        let host = host_of(&certificate)?;
        let route = Body::Route(Route::new(host.clone(), environment.id.clone()));
        self.put(&environment.organisation, Some(&route), &ObjectId::Route(host.clone().into())).await?;
        self.put(&environment.organisation, Some(&Body::Certificate(certificate)), &ObjectId::Certificate(host.into()))
            .await?;
        Ok(())
    }

    /// Publishes the environment's cell if edges would see a difference; takes everything of it back where it is being deleted.
    pub(super) async fn publish_cell(&mut self, environment: &mut Environment, now: Millis) -> Result<(), StoreError> {
        let id = ObjectId::Environment(environment.id.clone());
        if environment.state == EnvironmentState::Deleting {
            if self.body_of(&id).await?.is_some() {
                for host in environment.hosts.clone() {
                    self.put(&environment.organisation, None, &ObjectId::Certificate(host.clone().into())).await?;
                    self.put(&environment.organisation, None, &ObjectId::Route(host.into())).await?;
                }
                environment.generation = self.put(&environment.organisation, None, &id).await?;
            }
            return Ok(());
        }
        let body = Body::Environment(Box::new(self.cell(environment, now).await?));
        if self.body_of(&id).await?.as_deref() != Some(to_json(&body).as_str()) {
            environment.generation = self.put(&environment.organisation, Some(&body), &id).await?;
        }
        Ok(())
    }

    async fn body_of(&mut self, id: &ObjectId) -> Result<Option<String>, StoreError> {
        let (kind, name) = object_name(id);
        let row = sqlx::query("SELECT body FROM object WHERE kind = $1 AND id = $2")
            .bind(kind)
            .bind(name)
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
    }

    async fn cell(&mut self, environment: &Environment, now: Millis) -> Result<Cell, StoreError> {
        let mut deployment = 0;
        let mut endpoints = Vec::new();
        if let Some(serving) = &environment.serving {
            let row = sqlx::query("SELECT number FROM deployment WHERE id = $1")
                .bind(serving)
                .fetch_one(&mut *self.tx)
                .await?;
            deployment = unsigned(row.try_get(0)?);
            for instance in self.instances_of(serving).await? {
                endpoints.push(Endpoint::new(instance.id.clone(), instance.endpoint()));
            }
        }
        Ok(Cell {
            id: environment.id.clone(),
            app: environment.app.clone(),
            name: environment.name.clone(),
            deployment,
            state: published_state(environment, now),
            epoch: environment.epoch,
            endpoints,
            policy: policy::published(environment),
        })
    }
}

fn published_state(environment: &Environment, now: Millis) -> State {
    match environment.state {
        EnvironmentState::Empty | EnvironmentState::Deleting => State::Empty,
        EnvironmentState::Ready => State::Ready,
        EnvironmentState::Closing => State::Closing,
        EnvironmentState::Asleep => State::Asleep,
        EnvironmentState::Waking => State::Waking,
        EnvironmentState::Failed => {
            State::Failed { retry_in: Duration::from_millis(unsigned(environment.retry_at.saturating_sub(now))) }
        }
    }
}

/// The one host that a certificate of an environment is for.
pub(super) fn host_of(certificate: &Certificate) -> Result<Host, StoreError> {
    let wildcard = || StoreError::Corrupt { what: "certificate.host", value: certificate.host.to_string() };
    certificate.host.host().ok_or_else(wildcard)
}

fn object_name(id: &ObjectId) -> (&'static str, &str) {
    match id {
        ObjectId::Route(host) => ("route", host.as_str()),
        ObjectId::Environment(id) => ("environment", id.as_str()),
        ObjectId::Certificate(name) => ("certificate", name.as_str()),
    }
}

fn object_id(kind: &str, id: &str) -> Result<ObjectId, StoreError> {
    Ok(match kind {
        "route" => ObjectId::Route(parse("object.id", id)?),
        "environment" => ObjectId::Environment(dormouse_link::EnvironmentId::new(id)),
        "certificate" => ObjectId::Certificate(parse("object.id", id)?),
        _ => return Err(StoreError::Corrupt { what: "object.kind", value: kind.to_owned() }),
    })
}
