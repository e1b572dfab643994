//! `policy.pages`: what people are shown where an environment does not answer them itself. Programs get a problem document in any
//! case; status and header fields are the edge's own.
//!
//! In a table file a page may be a file, which whoever reads the table reads with it; everywhere else a page is its text.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest page, in bytes.
pub const PAGE_MAX_BYTES: usize = 64 << 10;

/// Pages of an environment, by what they say; where there is none, people get the edge's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Pages {
    /// It is being started; the page asks again by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waking: Option<Page>,
    /// It could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Page>,
    /// It is not to be served for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Page>,
    /// Its instance did not answer, not in time, or not so that it is understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_gateway: Option<Page>,
    /// There is nobody to answer, or too much to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<Page>,
    /// The visitor is not let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<Page>,
    /// The visitor asks too much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub too_many: Option<Page>,
}

crate::object::only!(Pages);

/// A page: HTML, in which `{request_id}` and `{retry_after}` are filled in.
#[derive(Clone, PartialEq, Eq)]
pub enum Page {
    /// As it is sent. Copies share it.
    Text(Arc<str>),
    /// Where it is; relative to the table file.
    File(PathBuf),
}

/// A page is long, and policies are logged.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// What is wrong with pages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PagesError {
    /// Nothing to show.
    #[error("{0} is an empty page; leave it out for the edge's own")]
    Empty(&'static str),
    /// Too much.
    #[error("{0} is a page of at most {PAGE_MAX_BYTES} bytes, not {1}")]
    TooLarge(&'static str, usize),
    /// Nobody has read it.
    #[error("{0} is a page as text; only table files may name files")]
    File(&'static str),
}

impl Pages {
    /// All that there are, with their names.
    pub fn named_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Page)> {
        self.all_mut().into_iter().filter_map(|(name, page)| Some((name, page.as_mut()?)))
    }

    /// Without those that are files: of them nothing can be said yet.
    pub(crate) fn without_files(mut self) -> Self {
        for (_, page) in self.all_mut() {
            page.take_if(|page| matches!(page, Page::File(_)));
        }
        self
    }

    fn all_mut(&mut self) -> [(&'static str, &mut Option<Page>); 7] {
        let Self { waking, failed, maintenance, bad_gateway, unavailable, denied, too_many } = self;
        [
            ("waking", waking),
            ("failed", failed),
            ("maintenance", maintenance),
            ("bad_gateway", bad_gateway),
            ("unavailable", unavailable),
            ("denied", denied),
            ("too_many", too_many),
        ]
    }

    pub(super) fn check(&self) -> Result<(), PagesError> {
        self.clone().named_mut().try_for_each(|(name, page)| match page {
            Page::Text(text) if text.trim_ascii().is_empty() => Err(PagesError::Empty(name)),
            Page::Text(text) if text.len() > PAGE_MAX_BYTES => Err(PagesError::TooLarge(name, text.len())),
            Page::Text(_) => Ok(()),
            Page::File(_) => Err(PagesError::File(name)),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InFile {
    file: PathBuf,
}

impl Serialize for Page {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(to),
            Self::File(path) => InFile { file: path.clone() }.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Page;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("HTML as text, or an object with \"file\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Page, E> {
                Ok(Page::Text(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Page, A::Error> {
                let InFile { file } = InFile::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Page::File(file))
            }
        }
        from.deserialize_any(Either)
    }
}
