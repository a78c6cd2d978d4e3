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

/// Values of one block of a table: a table that grows never moves what it holds, so that no turn
/// stands still for it, and no memory is left behind.
const BLOCK: usize = 256;

/// Values by keys.
pub struct Table<K, V> {
    blocks: Vec<Slab<V>>,
    /// Blocks that have room.
    open: Vec<u32>,
    len: usize,
    keys: PhantomData<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { blocks: Vec::new(), open: Vec::new(), len: 0, keys: PhantomData }
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<K: Key, V> Table<K, V> {
    /// The value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        self.blocks.get(key.index() / BLOCK)?.get(key.index() % BLOCK)
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.blocks.get_mut(key.index() / BLOCK)?.get_mut(key.index() % BLOCK)
    }

    /// Gives a value a key.
    pub fn insert(&mut self, value: V) -> K {
        let at = match self.open.last() {
            Some(at) => *at as usize,
            None => {
                self.open.push(self.blocks.len() as u32);
                self.blocks.push(Slab::with_capacity(BLOCK));
                self.blocks.len() - 1
            }
        };
        let block = &mut self.blocks[at];
        let index = block.insert(value);
        if block.len() == BLOCK {
            self.open.pop();
        }
        self.len += 1;
        K::from_index(at * BLOCK + index)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let at = key.index() / BLOCK;
        let block = self.blocks.get_mut(at)?;
        let was_full = block.len() == BLOCK;
        let value = block.try_remove(key.index() % BLOCK)?;
        if was_full {
            self.open.push(at as u32);
        }
        self.len -= 1;
        Some(value)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = K> + '_ {
        (0..).step_by(BLOCK).zip(&self.blocks).flat_map(|(first, block)| {
            block.iter().map(move |(index, _)| K::from_index(first + index))
        })
    }

    /// The values of one block, for who looks at all of them and not at once; `None` behind the last.
    pub fn block(&self, at: usize) -> Option<impl Iterator<Item = &V>> {
        self.blocks.get(at).map(|block| block.iter().map(|(_, value)| value))
    }

    /// All values.
    #[cfg(test)]
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> + '_ {
        self.blocks.iter().flat_map(|block| block.iter().map(|(_, value)| value))
    }

    /// How many values there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
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

    #[test]
    fn a_table_grows_by_blocks_and_fills_the_holes_first() {
        let mut table: Table<LaneKey, usize> = Table::default();
        let keys: Vec<LaneKey> = (0..3 * BLOCK + 1).map(|value| table.insert(value)).collect();
        assert_eq!(table.len(), 3 * BLOCK + 1);
        assert!(keys.iter().enumerate().all(|(value, key)| table.get(*key) == Some(&value)));
        for key in &keys[..BLOCK] {
            table.remove(*key);
        }
        assert_eq!(table.remove(keys[0]), None);
        let highest = (0..2 * BLOCK - 1).map(|value| table.insert(value).index()).max();
        assert_eq!(highest, Some(4 * BLOCK - 1), "no hole is left");
        assert_eq!(table.keys().count(), table.len());
    }
}
