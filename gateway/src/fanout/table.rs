//! Tables of a shard: connections, seats and lanes by small keys of their own kind.
//!
//! A key is four bytes, because there are millions of them. It may be given out again once its value
//! was removed: who keeps one beyond that must be able to bear finding another value there.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;

use slab::Slab;

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl Key for $name {
            fn from_index(index: usize) -> Self {
                Self::at(index as u32)
            }

            fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }

        impl $name {
            /// The key of a place; the last of 2^32 places has none.
            pub const fn at(index: u32) -> Self {
                match NonZeroU32::new(index.wrapping_add(1)) {
                    Some(key) => Self(key),
                    None => Self(NonZeroU32::MAX),
                }
            }
        }
    )+};
}

keys! {
    /// A connection of a shard.
    ConnectionKey,
    /// A seat of a shard.
    SeatKey,
    /// A lane of a shard.
    LaneKey,
}

/// A key that is a place in a table.
pub trait Key: Copy {
    /// The key of a place.
    fn from_index(index: usize) -> Self;

    /// The place of a key.
    fn index(self) -> usize;
}

/// Values by keys.
pub struct Table<K, V> {
    values: Slab<V>,
    keys: PhantomData<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { values: Slab::new(), keys: PhantomData }
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.values.len()).finish_non_exhaustive()
    }
}

impl<K: Key, V> Table<K, V> {
    /// The value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        self.values.get(key.index())
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.values.get_mut(key.index())
    }

    /// Gives a value a key.
    pub fn insert(&mut self, value: V) -> K {
        K::from_index(self.values.insert(value))
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        self.values.try_remove(key.index())
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.values.iter().map(|(index, _)| K::from_index(index))
    }

    /// All values.
    #[cfg(test)]
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> + '_ {
        self.values.iter().map(|(_, value)| value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_key_until_it_is_removed() {
        let mut table: Table<SeatKey, char> = Table::default();
        let (a, b) = (table.insert('a'), table.insert('b'));
        assert_eq!(table.remove(a), Some('a'));
        assert_eq!((table.get(a), table.get(b)), (None, Some(&'b')));
        assert_eq!(table.keys().collect::<Vec<_>>(), [b]);
        assert_eq!(size_of::<Option<SeatKey>>(), 4);
    }
}
