//! Sections of documents that people write are objects, by the names of their fields. Serde takes an array for a struct, too, by the
//! order of its fields in our source: `"maintenance": [60]` would change its meaning with the next version.
//!
//! Used by policies and the table file: their structs derive with `remote = "Self"`, and are named to [`only`].

use serde::de::{Deserializer, Visitor};

/// Reads structs from objects only.
pub(crate) struct Objects<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// These structs are read from objects, and from nothing else.
macro_rules! only {
    ($($section:ty),+) => { $(
        impl<'de> serde::Deserialize<'de> for $section {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::deserialize($crate::object::Objects(from))
            }
        }

        impl serde::Serialize for $section {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, to)
            }
        }
    )+ };
}

pub(crate) use only;
