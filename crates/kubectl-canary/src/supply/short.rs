//! Lists of somebody else's JSON, of which a few bytes can make very many elements. It reads no more of them than are
//! wanted, whatever the answer's size.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

/// Elements that a list may have. An image has at most some 120 layers.
pub const MOST: usize = 256;
/// How the error begins where a list has more.
const TOO_MANY: &str = "a list has more than";

/// Reads a list of at most [`MOST`] elements, for `deserialize_with`.
///
/// # Errors
/// Where there are more, or one is not of its kind.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let read = from.deserialize_seq(Read::<T> { most: MOST, kind: PhantomData })?;
    if read.more { Err(D::Error::custom(format!("{TOO_MANY} {MOST} elements"))) } else { Ok(read.first) }
}

/// What was wrong with a JSON text, in words that hold nothing of it.
#[must_use]
pub fn words(error: &serde_json::Error, otherwise: &str) -> String {
    let many = error.to_string().starts_with(TOO_MANY);
    if many { format!("{otherwise}: {TOO_MANY} {MOST} elements") } else { otherwise.to_owned() }
}

/// The first elements of a list of any length; the others are passed over.
#[derive(Debug, Clone)]
pub struct First<T, const N: usize> {
    /// At most so many.
    pub first: Vec<T>,
    /// Whether there are more.
    pub more: bool,
}

impl<T, const N: usize> Default for First<T, N> {
    fn default() -> Self {
        Self { first: Vec::new(), more: false }
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for First<T, N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Elements { first, more } = from.deserialize_seq(Read::<T> { most: N, kind: PhantomData })?;
        Ok(Self { first, more })
    }
}

struct Elements<T> {
    first: Vec<T>,
    more: bool,
}

struct Read<T> {
    most: usize,
    kind: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
    type Value = Elements<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < self.most {
            match elements.next_element()? {
                Some(element) => first.push(element),
                None => return Ok(Elements { first, more: false }),
            }
        }
        let mut more = false;
        while elements.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok(Elements { first, more })
    }
}
