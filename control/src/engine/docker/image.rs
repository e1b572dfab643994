//! Images: the sandbox's, which all installations share, and those of applications, which are each installation's own.
//!
//! An application's tag gets the installation's id as a part of its repository (`dormouse/INSTALLATION/APP:COMMIT`): two
//! Dormouses that deploy the same commit must not take each other's image away.

use bollard::models::ImageInspect;
use bollard::query_parameters::{BuildImageOptions, ListImagesOptions, RemoveImageOptions};
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{ANSWER_WITHIN, CHANGE_WITHIN, Docker, Fault, INSTALLATION, ask};
use crate::engine::{EngineError, Image, SANDBOX_PORT, sandbox_program};

/// The repository all our images are in.
const REPOSITORY: &str = "dormouse";

/// How often the list of images is gone through: an image goes only when those made from it are gone.
const REMOVE_ROUNDS: usize = 8;

impl Docker {
    /// The tag on the engine for a tag of the caller's.
    pub(super) fn tag(&self, tag: &str) -> String {
        let name = tag.strip_prefix(REPOSITORY).and_then(|rest| rest.strip_prefix('/')).unwrap_or(tag);
        format!("{REPOSITORY}/{}/{name}", self.installation)
    }

    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ImageInspect>, EngineError> {
        match self.ask(ANSWER_WITHIN, self.client().inspect_image(name)).await {
            Ok(found) => Ok(Some(found)),
            Err(Fault::Said { status: 404, .. }) => Ok(None),
            Err(fault) => Err(self.error(format!("look at image {name}"), fault)),
        }
    }

    pub(super) async fn find_image(&self, tag: &str) -> Result<Option<Image>, EngineError> {
        let found = self.inspect(&self.tag(tag)).await?;
        Ok(found.filter(|image| self.is_ours(image)).and_then(described))
    }

    fn is_ours(&self, image: &ImageInspect) -> bool {
        let labels = image.config.as_ref().and_then(|config| config.labels.as_ref());
        labels.and_then(|labels| labels.get(INSTALLATION)) == Some(&self.installation)
    }

    pub(super) async fn remove_tag(&self, tag: &str) -> Result<(), EngineError> {
        let name = self.tag(tag);
        match self.inspect(&name).await? {
            Some(image) if self.is_ours(&image) => {}
            _ => return Ok(()),
        }
        // With force, the tag goes even where a container still uses the image.
        let options = RemoveImageOptions { force: true, ..Default::default() };
        match self.ask(CHANGE_WITHIN, self.client().remove_image(&name, Some(options), None)).await {
            Ok(_) | Err(Fault::Said { status: 404, .. }) => Ok(()),
            Err(fault) => Err(self.error(format!("remove image {name}"), fault)),
        }
    }

    /// Removes every image of this installation. One that others build upon is left.
    pub(super) async fn remove_images(&self) -> Result<(), EngineError> {
        for _ in 0..REMOVE_ROUNDS {
            let options = ListImagesOptions { filters: self.filters(&[]), ..Default::default() };
            let found = self.ask(ANSWER_WITHIN, self.client().list_images(Some(options))).await;
            let found = found.map_err(|fault| self.error("list images", fault))?;
            let mut removed = 0;
            for image in found {
                let options = RemoveImageOptions { force: true, ..Default::default() };
                match self.ask(CHANGE_WITHIN, self.client().remove_image(&image.id, Some(options), None)).await {
                    Ok(_) => removed += 1,
                    Err(Fault::Said { status: 404 | 409, .. }) => {}
                    Err(fault) => return Err(self.error(format!("remove image {}", image.id), fault)),
                }
            }
            if removed == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Builds the sandbox's image where it is missing.
    pub(super) async fn ensure_sandbox_image(&self) -> Result<(), EngineError> {
        let tag = self.sandbox_tag.clone();
        if self.inspect(&tag).await?.is_some() {
            return Ok(());
        }
        let doing = "build the sandbox's image";
        // With the cache, so that whoever builds it a second time gets the same image and not a twin.
        let options = BuildImageOptions { t: Some(tag.clone()), rm: true, forcerm: true, ..Default::default() };
        let client = self.client();
        let built = client
            .build_image(options, None, Some(bollard::body_full(sandbox_context())))
            .try_fold(None, |id, info| async move { Ok(info.aux.and_then(|aux| aux.id).or(id)) });
        let built = self.ask(CHANGE_WITHIN, built).await.map_err(|fault| self.error(doing, fault))?;
        // Two that began at the same moment made two images, and the last one has the tag.
        let tagged = self.inspect(&tag).await?.and_then(|image| image.id);
        if let Some(built) = built.filter(|built| tagged.as_ref().is_some_and(|tagged| tagged != built)) {
            drop(self.ask(CHANGE_WITHIN, client.remove_image(&built, None::<RemoveImageOptions>, None)).await);
        }
        Ok(())
    }
}

/// Removes what a build left behind: untagged images that nothing is made from. Failing to is not worth a word.
pub(super) async fn sweep(client: &bollard::Docker, images: &[String]) {
    for image in images.iter().rev() {
        let untagged = |found: &ImageInspect| found.repo_tags.as_ref().is_none_or(Vec::is_empty);
        if matches!(ask(ANSWER_WITHIN, client.inspect_image(image)).await, Ok(found) if untagged(&found)) {
            // Its parents are in the list themselves, and what it was built upon is not ours to remove.
            let options = RemoveImageOptions { noprune: true, ..Default::default() };
            drop(ask(CHANGE_WITHIN, client.remove_image(image, Some(options), None)).await);
        }
    }
}

/// The tag of the sandbox's image: a hash of its content, so a new Dormouse brings its own.
pub(super) fn sandbox_tag() -> String {
    // FNV-1a, over what the image is made of. It tells versions apart; nobody is kept out by it.
    let hash = sandbox_context()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{REPOSITORY}/sandbox:{hash:016x}")
}

fn sandbox_context() -> Bytes {
    let dockerfile = format!(
        "FROM scratch\nCOPY sandbox /sandbox\nUSER 65534:65534\nENTRYPOINT [\"/sandbox\", \"{SANDBOX_PORT}\"]\n"
    );
    crate::context::archive(&[("Dockerfile", dockerfile.as_bytes(), 0o644), ("sandbox", sandbox_program(), 0o755)])
}

pub(super) fn described(image: ImageInspect) -> Option<Image> {
    let config = image.config.unwrap_or_default();
    let exposed = config.exposed_ports.unwrap_or_default();
    let mut exposed: Vec<u16> =
        exposed.iter().filter_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok()).collect();
    exposed.sort_unstable();
    exposed.dedup();
    let variables = config.env.unwrap_or_default();
    let port = variables.iter().find_map(|variable| variable.strip_prefix("PORT=")).map(str::to_owned);
    Some(Image { id: image.id?, exposed, port })
}
