//! Hosts: whose they are, and when they were last certified.

use dormouse_link::{Body, Certificate, Host, ObjectId, OrganisationId};
use sqlx::Row;

use super::{Store, StoreError, parse};
use crate::model::Millis;

impl Store {
    /// Every host, and when it was certified.
    pub(crate) async fn hosts(&self) -> Result<Vec<(Host, Millis)>, StoreError> {
        let rows = sqlx::query("SELECT host, certified_at FROM host ORDER BY host").fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok((parse("host.host", row.try_get(0)?)?, row.try_get(1)?))).collect()
    }

    /// A host proves itself with this from now on.
    pub(crate) async fn certify(&self, certificate: Certificate, now: Millis) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let owner = sqlx::query(
            "SELECT environment.organisation_id FROM host JOIN environment ON environment.id = host.environment_id \
             WHERE host.host = $1 AND environment.state <> 'deleting'",
        )
        .bind(certificate.host.as_str())
        .fetch_optional(&mut *write.tx)
        .await?;
        let Some(owner) = owner else { return Ok(()) };
        let organisation = OrganisationId::new(owner.try_get::<String, _>(0)?);
        sqlx::query("UPDATE host SET certified_at = $2 WHERE host = $1")
            .bind(certificate.host.as_str())
            .bind(now)
            .execute(&mut *write.tx)
            .await?;
        let id = ObjectId::Certificate(certificate.host.clone());
        write.put(&organisation, Some(&Body::Certificate(certificate)), &id).await?;
        write.commit().await
    }

    /// The certificate of the local authority that all hosts were certified by.
    pub(crate) async fn authority(&self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'authority'").fetch_optional(&self.read).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Notes that all hosts are certified by this authority.
    pub(crate) async fn note_authority(&self, certificate: &str) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ('authority', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(certificate)
        .execute(&mut *write.tx)
        .await?;
        write.commit().await
    }
}
